"""Resuming a run: whether a checkpoint fits, and which logged rows are kept."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from seq2seq.errors import UserError
from seq2seq.runs.directory import IRRELEVANT, flatten_keys
from seq2seq.training.checkpoints import HYPERPARAMETERS, upgraded
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
    before = upgraded(saved[HYPERPARAMETERS])
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


def keep_logged_rows(loggers: Sequence[Logger], output_dir: Path, steps: int) -> None:
    """Keep the rows of ``metrics.csv`` up to a step if a run resumes in its own directory.

    Lightning's logger would start a new file.
    """
    path = output_dir / "metrics.csv"
    if steps == 0 or not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < steps]
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            for row in rows:
                numbers = {name: float(value) for name, value in row.items() if value and name != "step"}
                logger.experiment.log_metrics(numbers, int(row["step"]))
            logger.save()
