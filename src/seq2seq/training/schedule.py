"""Learning-rate schedules, as fractions of the optimizer's learning rate.

A schedule in ``configs/scheduler`` is called with the optimizer and the number of steps of the run, like those of
PyTorch that take ``total_steps``.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from seq2seq.errors import UserError
from seq2seq.settings import Fraction


def cosine_with_warmup(optimizer: Optimizer, total_steps: float, warmup: Fraction) -> LambdaLR:
    """Rise linearly in the first ``warmup`` of all steps, then fall to zero in half a cosine."""
    return LambdaLR(optimizer, lambda step: cosine(step, rise_steps(total_steps, warmup), int(total_steps)))


def constant_with_warmup(optimizer: Optimizer, total_steps: float, warmup: Fraction) -> LambdaLR:
    """Rise linearly in the first ``warmup`` of all steps, then stay constant."""
    rise = rise_steps(total_steps, warmup)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, rise)))


def rise_steps(total_steps: float, warmup: float) -> int:
    """Return the number of steps in which the learning rate rises; raise `UserError` if the run has no end."""
    if math.isinf(total_steps):
        raise UserError("scheduler: the run has no end; give trainer.max_epochs or trainer.max_steps")
    return round(total_steps * warmup)


def cosine(step: int, rise: int, total: int) -> float:
    """Return the learning rate at a step.

    Example:
        >>> [round(cosine(step, 10, 100), 2) for step in (0, 4, 9, 10, 55, 100)]
        [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, total - rise)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
