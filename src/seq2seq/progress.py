"""Progress for a log: a line each epoch, where no terminal shows a live bar."""

import logging
import time

import pytorch_lightning as pl

log = logging.getLogger(__name__)


class EpochLines(pl.Callback):
    """Logs the losses and the exact match after each epoch."""

    def __init__(self) -> None:
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Log a line."""
        metrics = trainer.callback_metrics
        log.info(
            "epoch %d of %d: train/loss %.4f, val/loss_teacher_forced %.4f, val/exact_match %.4f, %.0f s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            metrics["train/loss"],
            metrics["val/loss_teacher_forced"],
            metrics["val/exact_match"],
            time.monotonic() - self._start,
        )
