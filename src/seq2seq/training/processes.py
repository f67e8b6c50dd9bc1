"""Several processes that train one model together; with one process, nothing here communicates."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, distributed

from seq2seq.data import UNK
from seq2seq.errors import Stopped, UserError
from seq2seq.nn import Seq2Seq

PATIENCE = 3
"""Seconds in which a process that has failed must have ended, once the connection to it is lost."""


def count() -> int:
    """Return the number of processes that are connected."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def share_of(count_here: Tensor, device: torch.device) -> Tensor | float:
    """Return which part of a sum over all processes is this one's, times the number of processes.

    It is the weight of a mean that was taken here, so that the average over the processes, which is what becomes of
    their gradients, is the mean over all.

    Args:
        count_here: How many entries this process's mean was taken over.
        device: Where processes communicate from.
    """
    if count() == 1:
        return 1.0
    total = count_here.to(device, torch.float32)
    own = total.clone()
    distributed.all_reduce(total)
    return own * count() / total


def any_process(decision: bool, device: torch.device) -> bool:
    """Return whether any process has decided so; all of them must ask."""
    if count() == 1:
        return decision
    votes = torch.tensor(int(decision), device=device)
    distributed.all_reduce(votes)
    return bool(votes)


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
    """End quietly if the connection to another process is lost because that one has failed with a message of its own.

    Raises:
        SystemExit: In that case.
        Stopped: If it was a signal.
        UserError: If the other process has not ended, or was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or not is_lost_connection(error):
            raise
        launcher = trainer.strategy.launcher
        processes = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
        deadline = time.monotonic() + PATIENCE
        while processes and not any(process.poll() for process in processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        codes = [process.returncode for process in processes if process.returncode]
        if any(code > 128 for code in codes):  # a signal has ended them in good order, and all have saved
            raise Stopped(max(codes) - 128) from None
        if any(code > 0 for code in codes):
            raise SystemExit(max(codes)) from None
        if codes:
            raise UserError(f"a process of this run was ended by {signal.Signals(-codes[0]).name}") from None
        if trainer.is_global_zero:
            reason = str(error).splitlines()[0]
            raise UserError(f"the connection to another process of this run is lost: {reason}") from None
        raise SystemExit(1) from None  # the first process tells


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error says that another process is no longer there."""
    lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "[Gloo]", "gloo/", "NCCL")
    return isinstance(error, distributed.DistError) or any(one in str(error) for one in lost)
