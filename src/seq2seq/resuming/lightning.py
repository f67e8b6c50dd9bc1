"""What resuming needs of Lightning's internals: the loops, as a checkpoint holds them. Tried with Lightning 2.6.6."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl

from seq2seq.errors import UserError

SECTIONS = ("callbacks", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states")
"""What a checkpoint must hold for a run to go on, besides the weights."""


def check_version(trainer: pl.Trainer) -> None:
    """Raise a `UserError` if this version of Lightning keeps its loops in another way."""
    with suppress(AttributeError):
        loop = trainer.fit_loop.epoch_loop
        counts = loop.batch_progress.state_dict()
        if hasattr(loop, "_batches_that_stepped") and {"total", "current", "is_last_batch"} <= counts.keys():
            return
    raise UserError(
        f"pytorch-lightning {version('pytorch-lightning')} keeps its loops in a way that resuming does not know; "
        "install a version that constraints.txt names"
    )


def progress_of(trainer: pl.Trainer) -> Any:
    """Return how many batches of the epoch are ready and how many are completed, and whether one is the last."""
    return trainer.fit_loop.epoch_loop.batch_progress


def spare_first_process() -> None:
    """Let Lightning's observer not kill this process, the first of several, because another one has ended before it."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]


def position(saved: Mapping[str, Any]) -> tuple[int, int]:
    """Return the epoch in which a checkpoint goes on, and how many of its batches are done; both count from 0."""
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    if progress["is_last_batch"]:
        return saved["epoch"] + 1, 0
    return saved["epoch"], progress["current"]["completed"]


def take_back_batch(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Take back the start of a batch that has not run yet, in a checkpoint that is being made."""
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(("ready", "started", "processed"), counts["completed"]))
    progress["is_last_batch"] = False
    every = trainer.check_val_every_n_epoch
    done = progress["total" if every is None else "current"]["completed"]
    validated = every is None or (trainer.current_epoch + 1) % every == 0
    if trainer.enable_validation and validated and done % trainer.val_check_batch == 0:
        # Where a validation has just ended, Lightning counts the batch when it resumes.
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
