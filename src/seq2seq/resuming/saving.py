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
from seq2seq.resuming.lightning import progress_of, take_back_batch
from seq2seq.runs.files import atomic_write
from seq2seq.settings import Count
from seq2seq.training.processes import SAVE

log = logging.getLogger(__name__)

Minutes = Annotated[float, Field(ge=0)]


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its place, in the same folder, and renames it when it is complete and on disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, or raise a `UserError`; the one at ``path`` stays until the new one is whole."""
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


class RunCheckpoint(ModelCheckpoint):
    """`ModelCheckpoint` that keeps one file, always under the same name, and survives a move of the run's directory.

    Of equal epochs it keeps the later. A run that resumes takes the file along from the directory of the checkpoint it
    resumes from; Lightning's callback would forget its score and replace it by whatever comes next. Without a
    ``monitor``, the last epoch counts as the best.
    """

    def __init__(self, filename: str, monitor: str | None = None, mode: Literal["min", "max"] = "min") -> None:
        super().__init__(filename=filename, monitor=monitor, mode=mode, enable_version_counter=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Return whether this epoch is the best; of equal epochs, the later is."""
        best = self.best_k_models.get(self.kth_best_model_path)
        equal = current is not None and best is not None and bool(current == best)
        return equal or super().check_monitor_top_k(trainer, current)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take the file along, and let the state that is restored next name it where it is now."""
        state = checkpoint["callbacks"].pop(self.state_key, None)
        if trainer.state.fn != "fit" or not state or not state["best_model_path"]:  # is tested; or none was written yet
            return
        path = Path(self.format_checkpoint_name({}))
        kept = Path(str(trainer.ckpt_path)).expanduser().with_name(path.name)
        if not kept.is_file() or not is_whole(kept):
            log.warning("%s is missing or damaged; the next epochs will replace it", kept)
            return
        if trainer.is_global_zero and kept.resolve() != path.resolve():
            with atomic_write(path, "resume") as temporary:
                shutil.copyfile(kept, temporary)
        here = {"dirpath": self.dirpath, "best_model_path": str(path), "kth_best_model_path": str(path)}
        scores = {str(path): score for score in state["best_k_models"].values()}
        checkpoint["callbacks"][self.state_key] = state | here | {"best_k_models": scores}


class LastCheckpoint(RunCheckpoint):
    """The last state of a run: of the last epoch, and before its end, every few batches or minutes, if they are given.

    A run that resumes from it ends with the same weights and the same log as one that never stopped.
    """

    def __init__(self, filename: str, every_n_steps: Count | None = None, every_minutes: Minutes | None = None) -> None:
        super().__init__(filename)
        self.every_n_steps = every_n_steps
        self.every_seconds = math.inf if every_minutes is None else 60 * every_minutes
        self._saved_at = time.monotonic()
        self._between_batches = False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save what the batches before this one have left, if it is time to.

        Lightning's callback saves at the end of a batch, before the batch is counted and its results are logged.
        """
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if time.monotonic() - self._saved_at >= self.every_seconds:
            pl_module.requests.own.add(SAVE)
        if SAVE in pl_module.requests.granted or (self.every_n_steps and batch_idx % self.every_n_steps == 0):
            pl_module.requests.own.discard(SAVE)
            self.save_between_batches(trainer)

    def save_between_batches(self, trainer: pl.Trainer) -> None:
        """Save the state, unless no batch of the epoch is complete or gradients wait for their step."""
        batch = progress_of(trainer).current.completed
        if batch == 0 or batch % trainer.accumulate_grad_batches or trainer.overfit_batches or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        self._between_batches = True
        trainer.save_checkpoint(self.format_checkpoint_name({}))
        self._between_batches = False
        self._saved_at = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add ``metrics.csv`` so far, and take back the start of a batch that has not run yet."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, CSVLogger):
                logger.save()
                file = Path(logger.experiment.metrics_file_path)
                checkpoint["seq2seq_log"] = file.read_text(encoding="utf-8") if file.exists() else ""
        if self._between_batches:
            take_back_batch(trainer, checkpoint)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of an epoch; a validation within an epoch is saved before the next batch."""
        if progress_of(trainer).is_last_batch:
            super().on_validation_end(trainer, pl_module)
            self._saved_at = time.monotonic()
        else:
            self._saved_at = -math.inf
