"""From scores to weights that sum to 1: softmax, and a sparse alternative whose weights can be exactly zero."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LOWEST = -1e4
"""Floor of ``(score - highest) / 2``. So low a score has no weight, as padding must have none, and sums stay finite."""


class Entmax15(torch.autograd.Function):
    """Entmax with alpha = 1.5 over the last axis (Peters et al. 2019): ``clamp(scores / 2 - threshold, min=0) ** 2``.

    The threshold makes the weights sum to 1. Their algorithm 2 finds it by sorting: with the k highest halved scores
    inside, it is ``mean - sqrt((1 - k * variance) / k)`` of these, and k is the largest number whose lowest halved
    score is above it. The gradient is that of their proposition 2.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # noqa: ANN401 - PyTorch's context
        """Return the weights."""
        halves = ((scores - scores.amax(-1, keepdim=True)) / 2).clamp(min=LOWEST)
        ordered = halves.sort(-1, descending=True).values
        count = torch.arange(1, ordered.size(-1) + 1, device=scores.device, dtype=scores.dtype)
        mean = ordered.cumsum(-1) / count
        variance = (ordered * ordered).cumsum(-1) / count - mean * mean
        thresholds = mean - (1 / count - variance).clamp(min=0).sqrt()
        inside = (thresholds <= ordered).sum(-1, keepdim=True).clamp(min=1)  # 0 only among NaN, which stay so
        weights = (halves - thresholds.gather(-1, inside - 1)).clamp(min=0) ** 2
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401 - see above
        """Return the gradient of the scores, given that of the weights."""
        roots = ctx.saved_tensors[0].sqrt()
        scaled = gradients[0] * roots
        return scaled - roots * scaled.sum(-1, keepdim=True) / roots.sum(-1, keepdim=True)


def softmax(scores: Tensor) -> Tensor:
    """Return weights that are above zero, except at padding."""
    return scores.softmax(-1)


def entmax15(scores: Tensor) -> Tensor:
    """Return weights; those of low scores are exactly zero. See `Entmax15`.

    Example:
        >>> entmax15(torch.tensor([2.0, 2.0, 0.0]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    weights: Any = Entmax15.apply(scores.float() if scores.dtype.itemsize < 4 else scores)
    return weights.to(scores.dtype)


NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": softmax, "entmax15": entmax15}
"""Registry of normalisers: config name to function."""
