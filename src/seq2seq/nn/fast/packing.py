"""A padded batch and its real tokens one behind another: from either to the other, and nowhere else.

PyTorch's own functions copy step by step, forward and backward, and took up to a tenth of a training step. Here the
places of the tokens are computed once, and tokens are taken from there or put there in one go.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

CPU = torch.device("cpu")


class Rows(Protocol):
    """Something with rows that can be chosen, as a state."""

    def select(self, rows: Tensor) -> Self:
        """Return the given rows, ``(B')``."""
        ...


AnyRows = TypeVar("AnyRows", bound=Rows)


class Packing(NamedTuple):
    """Where the tokens of a padded batch, ``(B, T)``, stand when they are packed, as in a ``PackedSequence``.

    The first token of every row, then the second of every row that has one, and so on, the longest row first; N in all.

    Attributes:
        sizes: Rows that have a first token, a second, ...
        shape: B and T.
        places: Of each token in the flattened batch, ``row * T + step``, ``(N,)``; None of `full`, whose rows stay
            in their order.
        rows: Row of the batch that stands first, second, ..., ``(B,)``, or None likewise.
        unsorted: Its inverse.

    Example:
        >>> packing = Packing.of(torch.tensor([1, 3]), steps=4)
        >>> packing.sizes, packing.pack(torch.tensor([[7, 0, 0, 0], [4, 5, 6, 0]])).tolist()
        ([2, 1, 1], [4, 7, 5, 6])
        >>> packing.pad(torch.tensor([4, 7, 5, 6])).tolist()
        [[7, 0, 0, 0], [4, 5, 6, 0]]
    """

    sizes: list[int]
    shape: tuple[int, int]
    places: Tensor | None = None
    rows: Tensor | None = None
    unsorted: Tensor | None = None

    @classmethod
    def of(cls, lengths: Tensor, steps: int, device: torch.device = CPU) -> Self:
        """Return the packing of right-padded rows.

        Args:
            lengths: Number of real tokens in each row, from 1 to ``steps``, on the CPU, in any order, ``(B,)``.
            steps: T.
            device: Of the batch; the CPU by default.
        """
        shape = (len(lengths), steps)
        places = torch.arange(shape[0] * steps, device=device).view(shape)
        packed = pack_padded_sequence(places, lengths, batch_first=True, enforce_sorted=False)
        return cls(packed.batch_sizes.tolist(), shape, packed.data, packed.sorted_indices, packed.unsorted_indices)

    @classmethod
    def full(cls, rows: int, steps: int) -> Self:
        """Return the packing of rows that all have ``steps`` tokens."""
        return cls([rows] * steps, (rows, steps))

    def pack(self, padded: Tensor) -> Tensor:
        """Return the tokens of a padded batch: ``(B, T, ...)`` to ``(N, ...)``."""
        if self.places is None:
            return padded.transpose(0, 1).flatten(0, 1)
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, tokens: Tensor) -> Tensor:
        """Return the padded batch, zero at padding: ``(N, ...)`` to ``(B, T, ...)``."""
        rows, steps = self.shape
        if self.places is None:
            return tokens.unflatten(0, (steps, rows)).transpose(0, 1)
        flat = tokens.new_zeros(rows * steps, *tokens.shape[1:])
        return flat.index_copy(0, self.places, tokens).unflatten(0, self.shape)

    def sort(self, rows: AnyRows) -> AnyRows:
        """Return the rows of the batch in the order of the packing."""
        return rows if self.rows is None else rows.select(self.rows)

    def unsort(self, rows: AnyRows) -> AnyRows:
        """Return rows in the order of the packing in that of the batch."""
        return rows if self.unsorted is None else rows.select(self.unsorted)

    def sequence(self, tokens: Tensor) -> PackedSequence:
        """Return the tokens, ``(N, ...)``, as PyTorch's networks want them, the rows in the order of the packing."""
        return PackedSequence(tokens, torch.tensor(self.sizes))


def after_last(states: Sequence[Tensor]) -> Tensor:
    """Return the states after each row's last token, ``(B, H)``, of those after the first tokens, the second, ...

    Example:
        >>> after_last([torch.tensor([[1], [2], [3]]), torch.tensor([[4]])]).tolist()
        [[4], [2], [3]]
    """
    pieces, rows = [], 0
    for after in reversed(states):
        if len(after) > rows:
            pieces.append(after[rows:])
            rows = len(after)
    return torch.cat(pieces)
