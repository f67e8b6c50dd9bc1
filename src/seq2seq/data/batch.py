"""A padded batch of source and target."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A padded batch; lengths stay on the CPU, where packing wants them.

    Attributes:
        source: Token ids, right-padded, ``(B, S)``.
        source_lengths: Real tokens of each row, on the CPU, ``(B,)``.
        target: Begin, the token ids, end, then padding, ``(B, T + 1)``.
        target_lengths: Tokens to predict in each row, the end included, on the CPU, ``(B,)``.
        rows: Where each row stands in its corpus, on the CPU, ``(B,)``.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    rows: Tensor

    @property
    def inputs(self) -> Tensor:
        """What the decoder reads under teacher forcing, ``(B, T)``."""
        return self.target[:, :-1]

    @property
    def labels(self) -> Tensor:
        """What it must predict after each input, ``(B, T)``."""
        return self.target[:, 1:]

    def to(self, device: torch.device) -> Self:
        """Return the batch with its ids on ``device`` and its lengths where they are."""
        return self._replace(
            source=self.source.to(device, non_blocking=True), target=self.target.to(device, non_blocking=True)
        )
