"""What a decoder may look back at, and how the rows of a batch or the hypotheses of a search do so."""

from collections.abc import Callable
from typing import NamedTuple, Self

from torch import Tensor

from seq2seq.nn.fast.packing import Packing


class Memory(NamedTuple):
    """What a decoder may look back at, computed once for a source batch.

    Attributes:
        keys: What queries are compared with, ``(B, S, A)``.
        values: What is weighed: the encoder's outputs, ``(B, S, D * H)``, or what an attention makes of them.
        mask: True at real tokens, ``(B, S)``.
        hypotheses: Which of the K hypotheses of each row look back, n of all ``B * K``; None where each row is one.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor
    hypotheses: Packing | None = None

    def select(self, rows: Tensor) -> Self:
        """Return the memory of the given rows of the batch, ``(B')``."""
        return self._replace(keys=self.keys[rows], values=self.values[rows], mask=self.mask[rows])

    def first(self, rows: int) -> Self:
        """Return the memory of the first rows of the batch, or of as many hypotheses as there are."""
        if self.hypotheses is not None or len(self.mask) == rows:
            return self
        return self._replace(keys=self.keys[:rows], values=self.values[:rows], mask=self.mask[:rows])


Attend = Callable[[Tensor, Memory], tuple[Tensor, Tensor | None]]
"""An attention: see `seq2seq.nn.attention.Attention`."""


def look(attention: Attend, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
    """Attend with the queries of each row, or of each hypothesis of a search.

    The hypotheses of a row look back at one memory, which is not copied for them: they stand where steps would.

    Args:
        attention: What attends.
        queries: ``(B, T, H')``, or one of each hypothesis, ``(n, 1, H')``.
        memory: Of B rows.

    Returns:
        The contexts, ``(B, T, C)`` or ``(n, 1, C)``, and the weights, ``(B, T, S)`` or ``(n, 1, S)``.
    """
    places = memory.hypotheses
    if places is None:
        return attention(queries, memory)
    contexts, weights = attention(places.pad(queries.squeeze(1)), memory)
    return places.pack(contexts).unsqueeze(1), None if weights is None else places.pack(weights).unsqueeze(1)
