"""When checkpoints are written, and how: a run that resumes from one ends like a run that never stopped."""

import io
import logging
import math
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import TorchCheckpointIO

from seq2seq.checkpoint import is_whole
from seq2seq.resuming.lightning import take_back_batch
from seq2seq.runs.files import atomic_write
from seq2seq.settings import Count
from seq2seq.training.processes import SAVE

log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its place, in the same folder, and renames it when it is complete and on disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; whatever happens, the one that ``path`` holds is lost only when the new one is whole.

        Raises:
            UserError: If it cannot be written, for example because the disk is full.
        """
        if not all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values()):
            log.warning("%s is not written: weights are no longer finite numbers", path)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(path), "checkpoint") as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


def log_of(trainer: pl.Trainer) -> str:
    """Return what has been logged, as in ``metrics.csv``; empty without that logger."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()
            file = Path(logger.experiment.metrics_file_path)
            return file.read_text(encoding="utf-8") if file.exists() else ""
    return ""


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
        self,
        dirpath: str,
        filename: str,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        resume: str | None = None,
    ) -> None:
        super().__init__(
            dirpath,
            filename=filename,
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.resume = resume
        self.stage = ""
        self.writes = True

    @property
    def path(self) -> Path:
        """The file; of several processes, all use the directory of the first."""
        return Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare for a stage."""
        super().setup(trainer, pl_module, stage)
        self.stage = stage
        self.writes = trainer.is_global_zero

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Return whether this epoch is the best; of equal epochs, the later is."""
        best = self.best_k_models.get(self.kth_best_model_path)
        equal = current is not None and best is not None and bool(current == best)
        return equal or super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, even if the run's directory has moved."""
        if self.stage != "fit":  # a checkpoint that is tested
            return
        if not state_dict["best_model_path"]:  # none was written yet
            return
        kept = Path(self.resume).expanduser().with_name(self.path.name) if self.resume else self.path
        if not kept.is_file() or not is_whole(kept):
            log.warning("%s is missing or damaged; the next epochs will replace it", kept)
            return
        if self.writes and kept.resolve() != self.path.resolve():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path, "resume") as temporary:
                shutil.copyfile(kept, temporary)
        here = {"dirpath": self.dirpath, "best_model_path": str(self.path), "kth_best_model_path": str(self.path)}
        scores = {str(self.path): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict(state_dict | here | {"best_k_models": scores})


class LastCheckpoint(RunCheckpoint):
    """The last state of a run: of the last epoch, and before that, every few steps or minutes.

    A run that resumes from it ends with the same weights and the same log as one that never stopped.

    Args:
        dirpath: The run's directory.
        filename: File name, without suffix.
        every_n_steps: Save after so many batches of an epoch; None for no such limit.
        every_minutes: Save after so many minutes; None for no such limit.
        resume: The checkpoint from which the run resumes, if any.
    """

    def __init__(
        self,
        dirpath: str,
        filename: str,
        every_n_steps: Count | None = None,
        every_minutes: Annotated[float, Field(ge=0)] | None = None,
        resume: str | None = None,
    ) -> None:
        super().__init__(dirpath, filename, resume=resume)
        self.every_n_steps = every_n_steps
        self.every_seconds = math.inf if every_minutes is None else 60 * every_minutes
        self._saved_at = time.monotonic()
        self._between_batches = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save what the batches before this one have left, if it is time to.

        Lightning's callback saves at the end of a batch, before the batch is counted and its results are logged.
        """
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        by_steps = self.every_n_steps is not None and batch_idx % self.every_n_steps == 0
        by_time = time.monotonic() - self._saved_at >= self.every_seconds
        requests: Any = pl_module.requests
        if by_time:
            requests.ask(SAVE)
        if by_steps or requests.granted(SAVE):
            requests.withdraw(SAVE)
            self.save_between_batches(trainer, batch_idx)

    def save_between_batches(self, trainer: pl.Trainer, batch: int) -> None:
        """Save the state before a batch, unless it is the first of its epoch or gradients wait for their step.

        Args:
            trainer: The trainer.
            batch: Number of the batch in its epoch.
        """
        if batch == 0 or batch % trainer.accumulate_grad_batches or trainer.overfit_batches or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        self._between_batches = True
        trainer.save_checkpoint(self.path)
        self._between_batches = False
        self._saved_at = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the log so far, and take back the start of a batch that has not run yet."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["seq2seq_log"] = log_of(trainer) if trainer.is_global_zero else ""
        if self._between_batches:
            take_back_batch(trainer, checkpoint)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of an epoch; a validation within an epoch is saved before the next batch."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_validation_end(trainer, pl_module)
            self._saved_at = time.monotonic()
        else:
            self._saved_at = -math.inf
