"""Dropout that draws its random numbers faster on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANCES = 2**16
"""Probabilities are rounded to a multiple of 1 / 65536."""


class Dropout(nn.Dropout):
    """``nn.Dropout`` (Srivastava et al. 2014), several times as fast on a CPU.

    PyTorch draws one random number per unit. Here, one 64-bit number serves four units, so the probability is rounded
    to a multiple of 1 / 65536. Kept units are scaled according to the rounded probability, so their mean is exact.

    Example:
        >>> layer = Dropout(0.5)
        >>> set(layer(torch.ones(1000)).tolist()) == {0.0, 2.0}
        True
        >>> layer.eval()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - named by PyTorch
        """Drop units of a tensor of any shape, in training only."""
        return dropout(input, self.p, self.training)


def dropout(units: Tensor, p: float, training: bool) -> Tensor:
    """Return the units, of any shape, each dropped with probability ``p`` in training."""
    dropped = round(p * CHANCES)
    if not training or not units.is_cpu or not 0 < dropped < CHANCES:
        return F.dropout(units, p, training)
    words = torch.empty(-(-units.numel() // 4), dtype=torch.int64, device=units.device).random_(-(2**63), None)
    chances = words.view(torch.int16)[: units.numel()].view(units.shape)  # from -32768 to 32767
    kept = (chances >= dropped - CHANCES // 2).to(units.dtype)
    return units * kept.mul_(CHANCES / (CHANCES - dropped))
