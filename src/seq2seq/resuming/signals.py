"""Ctrl-C, SIGTERM and SIGUSR1: the run ends after the current step, with its state saved."""

import logging
import signal
import threading
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl

from seq2seq.errors import STOP_SIGNALS, Stopped
from seq2seq.resuming.lightning import progress_of, spare_first_process
from seq2seq.resuming.saving import LastCheckpoint

log = logging.getLogger(__name__)


class StopSignals(pl.Callback):
    """Ends training at a signal, after the current step and with its state saved.

    As a context manager it handles the signals; as a callback, it tells when there is a step to wait for. At any other
    time, and at a second signal, the program ends at once. Of several processes, all stop at the same step, and a
    validation is waited for, as they can only save together. The error is then `Stopped`, and the log says what is kept
    in the run's directory.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
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
            error = Stopped(self.received)
        if isinstance(error, Stopped):
            kept = [str(path) for name in ("best", "last") if (path := self.output_dir / f"{name}.ckpt").exists()]
            go_on = f"; continue with the same command, hydra.run.dir={self.output_dir} and resume=auto" if kept else ""
            files = ", ".join(kept) or "no checkpoint, as none was written yet"
            log.error("stopped by %s; kept: %s%s", error.signal, files, go_on)
            raise error from None

    def _handle(self, number: int, frame: object) -> None:
        if self._ending:  # and saves; it takes a moment
            return
        first, self.received = self.received is None, number
        if not self._training or not first:
            raise Stopped(number)

    def _take_sigterm(self) -> None:
        """Take SIGTERM from Lightning, which would end training as if it were complete, or wait for other processes."""
        if self._handlers:
            signal.signal(signal.SIGTERM, self._handle)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle signals in the final test, too."""
        self._take_sigterm()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, there is a step to wait for."""
        self._take_sigterm()
        self._training = True

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save the state and end the program, if a signal has come."""
        if self.received is not None:
            pl_module.requests.own.add(self.received)
        for number in STOP_SIGNALS:
            if number in pl_module.requests.granted:
                self._save(trainer)
                raise Stopped(number)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let the first process end in peace; save the state if a worker has died of the signal, and no batch comes."""
        spare_first_process()
        died = self._training and self.received is not None and isinstance(exception, Exception)
        progress = progress_of(trainer)
        between_batches = progress.current.ready == progress.current.completed and not progress.is_last_batch
        if died and between_batches and trainer.world_size == 1:  # several can only save together
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self._training, self._ending = False, True
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save_between_batches(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation does not wait for its end, unless other processes do."""
        self._take_sigterm()
        if trainer.world_size == 1:
            self.on_train_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes on."""
        self._training = trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """There is no step to wait for any more."""
        self._training = False
        if self.received is not None:
            raise Stopped(self.received)
