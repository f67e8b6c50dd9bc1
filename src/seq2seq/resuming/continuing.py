"""Continuing a run: where it begins, whether a checkpoint fits, and which logged rows are kept."""

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger

from seq2seq.checkpoint import HYPERPARAMETERS, read_checkpoint
from seq2seq.errors import UserError
from seq2seq.resuming.directory import IRRELEVANT, finished, lock_run_dir
from seq2seq.resuming.lightning import SECTIONS, check_version, position
from seq2seq.runs.directory import CONFIG, flatten_keys, refuse_used
from seq2seq.training.module import Seq2SeqModule

FIXED = ("model.", "optimizer.", "scheduler.", "handoff")
"""Prefixes of the keys that must not change when a run resumes."""

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
        output_dir: Its directory.
        settings: Its settings.
        checkpoint: The checkpoint that it resumes from; None for a run from the beginning.
        saved: The content of the checkpoint; empty if there is none.
        epoch: The epoch in which it begins, counted from 0.
        batch: How many batches of that epoch are done.
        results: The content of ``metrics.json``, if the run is finished already.
    """

    output_dir: Path
    settings: Mapping[str, Any]
    checkpoint: str | None = None
    saved: Mapping[str, Any] = {}
    epoch: int = 0
    batch: int = 0
    results: dict[str, Any] | None = None

    def check(self, module: Seq2SeqModule) -> None:
        """Raise if the checkpoint belongs to another run; see `check_resumable`."""
        if self.checkpoint is not None:
            check_resumable(module, self.saved, self.checkpoint, averaging=self.settings["weight_averaging"] > 0)

    @contextmanager
    def entered(self, trainer: pl.Trainer, overrides: Sequence[str]) -> Iterator[None]:
        """Lock the directory for the run, write its settings there, and restore its log; the first process does so."""
        check_version(trainer)
        if not trainer.is_global_zero:
            yield
            return
        anew = self.settings["resume"] == "auto"
        with lock_run_dir(self.output_dir, {**self.settings, "resume": self.checkpoint}, overrides,
                          resume=self.checkpoint, anew=anew):  # fmt: skip
            restore_log(trainer.loggers, self.saved)
            yield


def find_start(output_dir: Path, settings: Mapping[str, Any]) -> Start:
    """Return where a run with these settings begins in a directory.

    Raises:
        UserError: If the directory holds another run, or the checkpoint to resume from is not valid.
    """
    start = Start(output_dir, settings)
    resume = settings["resume"]
    if resume == "auto":
        if results := finished(output_dir, settings):
            return start._replace(results=results)
        checkpoint, saved = newest_checkpoint(output_dir)
    else:
        checkpoint, saved = resume, read_to_resume(resume) if resume else {}
    refuse_used(output_dir, checkpoint, anew=resume == "auto")
    epoch, batch = position(saved) if checkpoint else (0, 0)
    epochs = settings["trainer"]["max_epochs"]
    if 0 < epochs < epoch:
        raise UserError(f"trainer.max_epochs={epochs} must be at least the {epoch} epochs that are already done")
    return start._replace(checkpoint=checkpoint, saved=saved, epoch=epoch, batch=batch)


def read_to_resume(path: str) -> dict[str, Any]:
    """Read a checkpoint to resume from.

    Raises:
        UserError: If it is not valid, or holds less than training wrote.
    """
    saved = read_checkpoint(path, "resume")
    if missing := [section for section in SECTIONS if section not in saved]:
        raise UserError(f"resume={path} lacks {', '.join(missing)}: predict with it, or resume from another checkpoint")
    return saved


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
    then = dict(flatten_keys(saved["seq2seq_config"]))
    for key, now in flatten_keys(module.config):
        if key not in then or now == then[key] or key.startswith(IRRELEVANT):
            continue
        if key.startswith(FIXED):
            raise UserError(
                f"{key}={now} differs from the {then[key]} that resume={resume} was trained with; "
                "give the overrides of that run again"
            )
        log.warning("%s=%s from here on; it was %s", key, now, then[key])


def newest_checkpoint(output_dir: Path) -> tuple[str | None, Mapping[str, Any]]:
    """Return the whole checkpoint of a run with the most steps, its path and its content; None if there is none.

    Damaged ones are reported.
    """
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name in ("best.ckpt", "last.ckpt"):
        if (output_dir / CONFIG).exists() and (output_dir / name).exists():
            try:
                found.append((str(output_dir / name), read_to_resume(str(output_dir / name))))
            except UserError as error:
                log.warning("%s; it is not used", error)
    # Of two with as many steps, last.ckpt: it comes later.
    return max(reversed(found), key=lambda one: one[1]["global_step"]) if found else (None, {})


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
