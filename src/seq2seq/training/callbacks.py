"""Callbacks that Lightning does not have."""

import logging
import time
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, RichProgressBar

from seq2seq.settings import Count

log = logging.getLogger(__name__)


class PatientStopping(EarlyStopping):
    """`EarlyStopping` that does not lose patience before the metric leaves 0, if higher is better.

    Exact match, for example, may stay 0 for some epochs although the model learns. ``patience`` is the number of
    validations without a better value; a run that resumes may change it. The log says when and why training stops.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"], patience: Count) -> None:
        super().__init__(monitor, mode=mode, patience=patience, strict=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the run that resumes was already out of patience."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        """Count the validation, unless the metric is still 0."""
        if self.mode == "min" or trainer.callback_metrics.get(self.monitor, 0) > 0:
            super()._run_early_stopping_check(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log if this ended training."""
        if self.stopped_epoch:
            why = f"no better {self.monitor} in {self.wait_count} validations"
            limit = f"callbacks.early_stopping.patience={self.patience}"
            log.info("stopped early after epoch %d: %s (%s)", self.stopped_epoch + 1, why, limit)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, except for the patience."""
        super().load_state_dict(state_dict | {"patience": self.patience})


class WeightAveraging(EMAWeightAveraging):
    """`EMAWeightAveraging` that forgets the average after training, so that checkpoints are tested as they are."""

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the average."""
        self._average_model = None


class BatchSeed(pl.Callback):
    """Seeds dropout by the run's seed and the number of the batch, so that a resumed run draws the same numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Seed the batch."""
        number = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        torch.manual_seed((self.seed * 1_000_003 + number) * 1_009 + trainer.global_rank)


class EpochBar(RichProgressBar):
    """`RichProgressBar` that counts epochs from 1, as the log does."""

    def _get_train_description(self, current_epoch: int) -> str:
        return epoch_of(self.trainer, current_epoch).ljust(len(self.validation_description))


def epoch_of(trainer: pl.Trainer, number: int) -> str:
    """Return which epoch of how many the one with a number, from 0, is; the run may be limited by its steps only."""
    most = trainer.max_epochs or -1
    return f"epoch {number + 1}" + (f" of {most}" if most > 0 else "")


class EpochLines(pl.Callback):
    """Logs the losses and the monitored metric after each epoch, unless a live bar shows them."""

    def __init__(self, monitor: str) -> None:
        self.names = dict.fromkeys(("train/loss", "val/loss_teacher_forced", monitor))
        self._start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a run that resumes within an epoch does not start that epoch."""
        self._start = time.monotonic()

    on_train_epoch_start = on_train_start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log one line."""
        if trainer.progress_bar_callback is not None:
            return
        metrics = trainer.callback_metrics
        values = [f"{name} {metrics[name]:.4f}" for name in self.names if name in metrics]
        seconds = time.monotonic() - self._start
        log.info("%s: %s, %.0f s", epoch_of(trainer, trainer.current_epoch), ", ".join(values), seconds)
