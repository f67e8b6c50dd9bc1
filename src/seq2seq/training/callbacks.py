"""Callbacks that Lightning does not have."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from seq2seq.errors import check_count
from seq2seq.runs.files import atomic_write

log = logging.getLogger(__name__)


class RunCheckpoint(ModelCheckpoint):
    """`ModelCheckpoint` that keeps one file, always under the same name, and survives a move of the run's directory.

    Of equal epochs it keeps the later. A run that resumes takes the file along from the directory of the checkpoint it
    resumes from; Lightning's callback would forget its score and replace it by whatever comes next.

    Args:
        dirpath: The run's directory.
        filename: File name, without suffix.
        monitor: The metric that selects the best epoch; None keeps the last.
        mode: ``max`` or ``min``.
        resume: The checkpoint from which the run resumes, if any.
    """

    def __init__(
        self, dirpath: str, filename: str, monitor: str | None = None, mode: str = "min", resume: str | None = None
    ) -> None:
        super().__init__(
            dirpath,
            filename=filename,
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.path = Path(dirpath) / f"{filename}{self.FILE_EXTENSION}"
        self.resume = resume
        self.stage = ""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare for a stage."""
        super().setup(trainer, pl_module, stage)
        self.stage = stage

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Return whether this epoch is the best; of equal epochs, the later is."""
        best = self.best_k_models.get(self.kth_best_model_path)
        equal = current is not None and best is not None and bool(current == best)
        return equal or super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, even if the run's directory has moved."""
        if self.stage != "fit":  # a checkpoint that is tested
            return
        kept = Path(self.resume).expanduser().with_name(self.path.name) if self.resume else self.path
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


class PatientStopping(EarlyStopping):
    """`EarlyStopping` that does not lose patience before the metric leaves 0, if higher is better.

    Exact match, for example, may stay 0 for some epochs although the model learns. A run that resumes may change the
    patience, and the log says when and why training stops.

    Args:
        monitor: The metric.
        mode: ``max`` or ``min``.
        patience: Number of validations without a better value.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        check_count("callbacks.early_stopping.patience", patience)
        super().__init__(monitor, mode=mode, patience=patience, strict=False)

    def _counts(self, trainer: pl.Trainer) -> bool:
        return self.mode == "min" or float(trainer.callback_metrics.get(self.monitor, 0)) > 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch if it ends with validation."""
        if self._counts(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch if it ends with training."""
        if self._counts(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log if this ended training."""
        if self.stopped_epoch:
            log.info(
                "stopped early after epoch %d: no better %s in %d validations (callbacks.early_stopping.patience=%d)",
                self.stopped_epoch + 1,
                self.monitor,
                self.wait_count,
                self.patience,
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, except for the patience."""
        super().load_state_dict(state_dict | {"patience": self.patience})


class WeightAveraging(EMAWeightAveraging):
    """`EMAWeightAveraging` that forgets the average after training, so that checkpoints are tested as they are."""

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the average."""
        self._average_model = None


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
    """Logs the losses and the monitored metric after each epoch, if no terminal shows a live bar.

    Args:
        monitor: The metric.
    """

    def __init__(self, monitor: str) -> None:
        self.names = dict.fromkeys(("train/loss", "val/loss_teacher_forced", monitor))
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log one line."""
        metrics = trainer.callback_metrics
        values = [f"{name} {metrics[name]:.4f}" for name in self.names if name in metrics]
        seconds = time.monotonic() - self._start
        log.info(
            "epoch %d of %s: %s, %.0f s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(values), seconds
        )
