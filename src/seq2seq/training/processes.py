"""Several processes that train one model together; with one process, nothing here communicates."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, distributed

from seq2seq.data import UNK
from seq2seq.errors import Stopped, UserError
from seq2seq.nn import Seq2Seq

PATIENCE = 3
"""Seconds in which the processes of a run must have ended, once one of them has failed."""

TOLD_BY_ANOTHER = 75
"""Exit code of a process that ends because another one has failed."""


class FailedElsewhereError(RuntimeError):
    """Raised in a process when another one reports the error of both."""


def count() -> int:
    """Return the number of processes that are connected."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def share_of(count_here: Tensor, device: torch.device, *, failed: bool = False) -> Tensor | float:
    """Return which part of a sum over all processes is this one's, times the number of processes.

    It is the weight of a mean that was taken here, so that the average over the processes, which is what becomes of
    their gradients, is the mean over all.

    Args:
        count_here: How many entries this process's mean was taken over.
        device: Where processes communicate from.
        failed: Whether this process is about to raise an error.

    Raises:
        FailedElsewhereError: If other processes have failed, except in the first of those that have.
    """
    if count() == 1:
        return 1.0
    own = torch.stack([count_here.to(device, torch.float32), torch.tensor(float(failed), device=device)])
    total = own.clone()
    distributed.all_reduce(total)
    if total[1]:
        rank = distributed.get_rank()
        if rank != count() - largest(count() - rank if failed else 0, device):
            raise FailedElsewhereError
    return own[0] * count() / total[0]


def largest(number: int, device: torch.device) -> int:
    """Return the largest of the numbers that all processes give; all of them must ask."""
    if count() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def merge(part: dict[int, Any]) -> dict[int, Any]:
    """Return the entries of all processes, in the order of their keys."""
    if count() == 1:
        return part
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, part)
    return dict(sorted(entry for one in parts for entry in one.items()))


def freeze_unused(model: Seq2Seq) -> None:
    """Exclude the parameters that no loss reaches from training; with several processes, PyTorch would wait for them.

    With a bridge of zeros and without attention, for example, these are the encoder's.
    """
    tokens, lengths = torch.full((2, 2), UNK), torch.tensor([2, 2])
    parameters = list(model.parameters())
    logits = model(tokens, lengths, tokens).logits
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(logits.sum(), parameters, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(gradient is not None)


def torchelastic_started() -> bool:
    """Return whether ``torchrun`` has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def check_started(trainer: pl.Trainer, devices: object) -> None:
    """Raise if ``torchrun`` or ``srun`` has started more processes than train together; each would train alone.

    Raises:
        UserError: If it has.
    """
    variable = "WORLD_SIZE" if torchelastic_started() else "SLURM_STEP_NUM_TASKS"
    started = int(os.environ.get(variable, "1"))
    if started > trainer.world_size:
        raise UserError(
            f"trainer.devices={devices} makes {trainer.world_size} of the {started} processes that have been started "
            f"({variable}); give trainer=ddp under torchrun, or trainer=slurm under srun"
        )


@contextmanager
def one_message(trainer: pl.Trainer) -> Iterator[None]:
    """End all processes of a run if one fails, with the message of that one alone.

    Raises:
        SystemExit: If another process has failed, and has told why.
        Stopped: If a signal has ended another process in good order.
        UserError: If another process was killed or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, FailedElsewhereError) and not is_lost_connection(error):
            end_others(trainer)
            raise
        if not trainer.is_global_zero:
            raise SystemExit(TOLD_BY_ANOTHER) from None
        raise reason_of(end_others(trainer), error) from None
    except BaseException:
        end_others(trainer)
        raise


def end_others(trainer: pl.Trainer) -> list[int]:
    """Wait for the processes that this one has started, kill those that go on, and return the exit codes."""
    launcher = trainer.strategy.launcher
    others = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []  # noqa: SLF001 - it would kill this process, too
    deadline = time.monotonic() + PATIENCE
    while any(other.poll() is None for other in others) and time.monotonic() < deadline:
        time.sleep(0.05)
    codes = [other.poll() for other in others]
    for other in others:
        other.kill()
    return [code for code in codes if code is not None]


def reason_of(codes: list[int], error: RuntimeError) -> BaseException:
    """Return what the first process raises, given the exit codes of the others and its own error."""
    if killed := [code for code in codes if code < 0]:
        return UserError(f"a process of this run was ended by {signal.Signals(-killed[0]).name}")
    if stopped := [code for code in codes if code > 128]:
        return Stopped(max(stopped) - 128)  # all have saved
    if told := [code for code in codes if code not in (0, TOLD_BY_ANOTHER)]:
        return SystemExit(told[0])
    if isinstance(error, FailedElsewhereError):
        return SystemExit(1)
    return UserError(f"the connection to another process of this run is lost: {str(error).splitlines()[0]}")


def is_lost_connection(error: RuntimeError) -> bool:
    """Return whether an error says that another process is no longer there."""
    lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
    return any(one in str(error) for one in lost)
