"""Callbacks: checkpoints, early stopping, seeds, and a line per epoch for a log."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from seq2seq.metrics.corpus import MONITOR
from seq2seq.runs.files import atomic_write

log = logging.getLogger(__name__)


class RunCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in the run's directory, always under the same name.

    A run has two, for the best and the last epoch, as Lightning's ``save_last`` only writes epochs that are among the
    best. A run that resumes in another directory copies the checkpoint there; Lightning's own callback would forget its
    score and replace it by whatever comes next.

    Args:
        output_dir: The run's directory.
        name: File name, without suffix.
        monitor: The metric that selects the best epoch, higher is better; None keeps the last.
        resumed_from: The directory of the checkpoint from which the run resumes.
    """

    def __init__(self, output_dir: Path, name: str, monitor: str | None, resumed_from: Path | None) -> None:
        super().__init__(
            output_dir,
            filename=name,
            monitor=monitor,
            mode="max" if monitor else "min",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.path = output_dir / f"{name}{self.FILE_EXTENSION}"
        self.resumed_from = resumed_from

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Return whether this epoch is the best; of equal epochs, the later is."""
        best = self.best_k_models.get(self.kth_best_model_path)
        equal = current is not None and best is not None and bool(current == best)
        return equal or super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, even if the run's directory has moved."""
        beside = self.resumed_from / self.path.name if self.resumed_from else self.path
        kept = beside if beside.exists() else Path(state_dict["best_model_path"])
        if not kept.is_file():
            log.warning("%s is missing; the best of the next epochs will replace it", kept)
            return
        if kept.resolve() != self.path.resolve():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path, "resume") as temporary:
                shutil.copyfile(kept, temporary)
        here = {"dirpath": self.dirpath, "best_model_path": str(self.path), "kth_best_model_path": str(self.path)}
        scores = {str(self.path): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict(state_dict | here | {"best_k_models": scores})


class ExactMatchStopping(EarlyStopping):
    """Stops after ``patience`` epochs without a better exact match, counted from the first match.

    Before that, exact match stays 0 even if the model learns. A run that resumes may change the patience.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(MONITOR, mode="max", patience=patience, strict=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch if it ends with validation."""
        if trainer.callback_metrics.get(MONITOR, 0) > 0:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch if it ends with training."""
        if trainer.callback_metrics.get(MONITOR, 0) > 0:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log if this ended training."""
        if self.stopped_epoch:
            log.info(
                "stopped early after epoch %d: no better exact match in %d epochs (early_stopping.patience=%d)",
                self.stopped_epoch + 1,
                self.wait_count,
                self.patience,
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, except for the patience."""
        super().load_state_dict(state_dict | {"patience": self.patience})


class BatchSeed(pl.Callback):
    """Seeds dropout by the number of the batch, so that a resumed run draws the same numbers as an uninterrupted one.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the batch."""
        number = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        torch.manual_seed((self.seed * 1_000_003 + number) * 1_009 + trainer.global_rank)


class EpochLines(pl.Callback):
    """Logs the losses and the exact match after each epoch, if no terminal shows a live bar."""

    def __init__(self) -> None:
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log one line."""
        names = ("train/loss", "val/loss_teacher_forced", "val/exact_match")
        metrics = trainer.callback_metrics
        values = [f"{name} {metrics[name]:.4f}" for name in names if name in metrics]
        seconds = time.monotonic() - self._start
        log.info(
            "epoch %d of %s: %s, %.0f s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(values), seconds
        )
