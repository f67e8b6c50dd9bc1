"""Callbacks that Lightning does not have."""

import logging
import signal
import threading
import time
from typing import Any, Literal, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging

from seq2seq.errors import STOP_SIGNALS, Stopped
from seq2seq.schema import Count
from seq2seq.training import processes
from seq2seq.training.saving import LastCheckpoint

log = logging.getLogger(__name__)


class StopSignals(pl.Callback):
    """Ends training at Ctrl-C, SIGTERM and SIGUSR1, after the current step and with its state saved.

    As a context manager it handles the signals; as a callback, it tells when there is a step to wait for. At any other
    time, and at a second signal, the program ends at once.

    Raises:
        Stopped: When the program is to end.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._training = False
        self._ending = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # the only one that may handle signals
            self._handlers = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.received is not None and isinstance(error, Exception):  # such as that a worker has died of the signal
            raise Stopped(self.received) from None

    def _handle(self, number: int, frame: object) -> None:
        if self._ending:  # and saves; it takes a moment
            return
        first, self.received = self.received is None, number
        if not self._training or not first:
            raise Stopped(number)

    def _take_over(self) -> None:
        """Take SIGTERM from Lightning, which would end training as if it were complete, or wait for other processes."""
        if self._handlers:
            signal.signal(signal.SIGTERM, self._handle)

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle signals before the first step, too."""
        self._take_over()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle signals in the final test, too."""
        self._take_over()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, there is a step to wait for."""
        self._take_over()
        self._training = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the state and end the program, if a signal has come."""
        number = processes.largest(self.received or 0, trainer.strategy.root_device)
        if number:
            self._save(trainer, batch_idx)
            raise Stopped(number)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state if a worker has died of the signal, so that no further batch comes."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        between = progress.current.ready == progress.current.completed and not progress.is_last_batch
        alone = trainer.world_size == 1  # several can only save together
        if self._training and self.received is not None and isinstance(exception, Exception) and between and alone:
            self._save(trainer, progress.current.completed)

    def _save(self, trainer: pl.Trainer, batch: int) -> None:
        self._training, self._ending = False, True
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save_between_batches(trainer, batch)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation does not wait for its end."""
        self._take_over()
        self._training = False
        if self.received is not None:
            raise Stopped(self.received)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes on."""
        self._training = trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training is complete."""
        self._training = False
        if self.received is not None:
            raise Stopped(self.received)


class PatientStopping(EarlyStopping):
    """`EarlyStopping` that does not lose patience before the metric leaves 0, if higher is better.

    Exact match, for example, may stay 0 for some epochs although the model learns. A run that resumes may change the
    patience, and the log says when and why training stops.

    Args:
        monitor: The metric.
        mode: ``max`` or ``min``.
        patience: Number of validations without a better value.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"], patience: Count) -> None:
        super().__init__(monitor, mode=mode, patience=patience, strict=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the run that resumes was already out of patience."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

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
