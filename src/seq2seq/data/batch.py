"""A padded batch of sources and targets; the only module that knows where begin and end of a target are."""

from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.data.vocabulary import BOS, EOS, PAD


class Batch(NamedTuple):
    """A padded batch.

    Attributes:
        source: Token ids, right-padded, ``(B, S)``.
        source_lengths: Number of tokens of each source, on the CPU, where packing needs it, ``(B,)``.
        target: Begin, the token ids, end, then padding, ``(B, T + 1)``.
        target_lengths: Number of tokens to predict, the end included, on the CPU, ``(B,)``.
        indices: Position of each pair in its dataset, on the CPU, ``(B,)``.
        features: Ids of each source's features, in any order, right-padded, ``(B, F)``; None without features.
        share: The weight that makes the mean loss over all processes the mean over the tokens of the whole batch: this
            one's share of the tokens, times the number of processes; 1 with one process.

    Example:
        >>> ids, lengths = torch.tensor([[7, 8], [9, 0]]), torch.tensor([2, 1])
        >>> batch = Batch.from_padded(ids, lengths, ids, lengths, torch.arange(2))
        >>> batch.inputs
        tensor([[1, 7, 8],
                [1, 9, 2]])
        >>> batch.labels
        tensor([[7, 8, 2],
                [9, 2, 0]])
        >>> batch.references()
        [[7, 8], [9]]
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    indices: Tensor
    features: Tensor | None = None
    share: float = 1.0

    @classmethod
    def from_padded(
        cls,
        source: Tensor,
        source_lengths: Tensor,
        target: Tensor,
        target_lengths: Tensor,
        indices: Tensor,
        features: Tensor | None = None,
    ) -> Self:
        """Return a batch of targets, ``(B, T - 1)``, that have no begin and end yet; their lengths count neither."""
        target = F.pad(F.pad(target, (1, 0), value=BOS), (0, 1), value=PAD)
        target.scatter_(1, (target_lengths + 1).unsqueeze(1), EOS)
        return cls(source, source_lengths, target, target_lengths + 1, indices, features)

    @property
    def given(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is encoded: the source, its lengths and its features."""
        return self.source, self.source_lengths, self.features

    @property
    def inputs(self) -> Tensor:
        """The decoder's inputs under teacher forcing, ``(B, T)``."""
        return self.target[:, :-1]

    @property
    def labels(self) -> Tensor:
        """The tokens to predict, one for each input, ``(B, T)``."""
        return self.target[:, 1:]

    def references(self) -> list[list[int]]:
        """Return the token ids of each target, without begin, end and padding."""
        lengths = (self.target_lengths - 1).tolist()
        return [ids[:length] for ids, length in zip(self.labels.tolist(), lengths, strict=True)]

    def to(self, device: torch.device) -> Self:
        """Return the batch with its ids on ``device``; lengths and indices stay on the CPU."""
        parts = {"source": self.source, "target": self.target, "features": self.features}
        moved = {name: ids.to(device, non_blocking=True) for name, ids in parts.items() if ids is not None}
        return self._replace(**moved)
