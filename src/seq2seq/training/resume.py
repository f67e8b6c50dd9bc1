"""Resuming a run: whether a checkpoint fits, and which logged rows are kept."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from seq2seq.checkpoint import HYPERPARAMETERS, read_checkpoint
from seq2seq.errors import UserError
from seq2seq.runs.directory import CONFIG, IRRELEVANT, flatten_keys
from seq2seq.training.module import Seq2SeqModule

FIXED = ("model.", "optimizer.", "scheduler.", "handoff")
"""Prefixes of the keys that must not change when a run resumes."""

log = logging.getLogger(__name__)


def check_resumable(module: Seq2SeqModule, saved: Mapping[str, Any], resume: str, *, averaging: bool) -> None:
    """Raise if a checkpoint belongs to another run, and log what else has changed since.

    Args:
        module: The module that resumes, with its config.
        saved: Content of the checkpoint.
        resume: Path of the checkpoint.
        averaging: Whether this run averages weights.

    Raises:
        UserError: If its model, optimizer or vocabularies differ.
    """
    before = saved[HYPERPARAMETERS]
    for side in ("source", "target"):
        if module.hparams[f"{side}_tokenizer"] != before[f"{side}_tokenizer"]:
            raise UserError(
                f"data: the {side} vocabulary differs from that of resume={resume}; "
                "give the training data of that run again"
            )
    if averaging is not ("averaging_state" in saved):
        was = "with" if "averaging_state" in saved else "without"
        raise UserError(f"weight_averaging: resume={resume} was trained {was} it; give the overrides of that run again")
    then = dict(flatten_keys(saved.get("seq2seq_config") or before))
    for key, now in flatten_keys(module.config):
        if key not in then or now == then[key] or key.startswith(IRRELEVANT):
            continue
        if key.startswith(FIXED):
            raise UserError(
                f"{key}={now} differs from the {then[key]} that resume={resume} was trained with; "
                "give the overrides of that run again"
            )
        log.warning("%s=%s from here on; it was %s", key, now, then[key])


def newest_checkpoint(output_dir: Path) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the whole checkpoint of a run with the most steps, its path and its content, if there is any.

    Damaged ones are reported.
    """
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name in ("best.ckpt", "last.ckpt"):
        if (output_dir / CONFIG).exists() and (output_dir / name).exists():
            try:
                found.append((str(output_dir / name), read_checkpoint(str(output_dir / name), "resume")))
            except UserError as error:
                log.warning("%s; it is not used", error)
    # Of two with as many steps, last.ckpt: it comes later.
    return max(reversed(found), key=lambda one: one[1]["global_step"]) if found else (None, None)


def restore_log(loggers: Sequence[Logger], saved: Mapping[str, Any]) -> None:
    """Begin ``metrics.csv`` with what a checkpoint holds of it; Lightning's logger would begin with nothing."""
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            for row in csv.DictReader(saved.get("seq2seq_log", "").splitlines()):
                step = int(row.pop("step"))
                if step < saved["global_step"]:  # the learning rate of the next step has been logged, too
                    numbers = {key: int(one) if one.isdecimal() else float(one) for key, one in row.items() if one}
                    logger.experiment.log_metrics(numbers, step)
            logger.save()
