"""The final state of a recurrent network, by layer and direction.

Only this module, and the kernels in `seq2seq.nn.fast`, depend on how PyTorch flattens layers and directions into the
first axis of ``h_n``::

    h_n[0]  layer 0 forward         h[0, 0]
    h_n[1]  layer 0 backward        h[0, 1]
    h_n[2]  layer 1 forward    ->   h[1, 0]
    h_n[3]  layer 1 backward        h[1, 1]
    ...

The layer is the outer index and the direction the inner one, so ``h_n[:num_layers]`` is *not* the forward direction,
and not the lower layers either. All other modules see four axes and cannot misread the flattened one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class RNNState(NamedTuple):
    """The state of every layer and direction of a GRU or an LSTM.

    Attributes:
        h: Hidden state, ``(L, D, B, H)``.
        c: Cell state of an LSTM, ``(L, D, B, H)``; None for a GRU.

    Example:
        >>> import torch
        >>> _, h_n = torch.nn.GRU(4, 5, num_layers=3, bidirectional=True)(torch.randn(7, 2, 4))
        >>> state = RNNState.from_torch(h_n, directions=2)
        >>> state.h.shape
        torch.Size([3, 2, 2, 5])
        >>> torch.equal(state.h[1, 0], h_n[2])  # layer 1, forward
        True
    """

    h: Tensor
    c: Tensor | None = None

    @classmethod
    def from_torch(cls, final: Tensor | tuple[Tensor, Tensor], directions: int) -> Self:
        """Convert the final state that ``nn.GRU`` or ``nn.LSTM`` returns.

        Args:
            final: ``h_n`` of a GRU or ``(h_n, c_n)`` of an LSTM, each ``(L * D, B, H)``.
            directions: 2 if the network is bidirectional, else 1.

        Raises:
            ValueError: If the first axis is not a multiple of ``directions``.
        """
        parts = (final,) if isinstance(final, Tensor) else final
        rows = parts[0].size(0)
        if rows % directions:
            raise ValueError(f"h_n has {rows} rows, which is not a multiple of {directions} directions")
        return cls(*(part.unflatten(0, (rows // directions, directions)) for part in parts))

    def to_torch(self) -> Tensor | tuple[Tensor, Tensor]:
        """Return the initial state of ``nn.GRU``, ``h_0``, or ``nn.LSTM``, ``(h_0, c_0)``; each ``(L * D, B, H)``."""
        h = self.h.flatten(0, 1).contiguous()
        return h if self.c is None else (h, self.c.flatten(0, 1).contiguous())

    def layers(self) -> list[Self]:
        """Return the states of the layers, from the bottom to the top, ``(1, D, B, H)`` each."""
        c: Sequence[Tensor | None] = [None] * len(self.h) if self.c is None else self.c.split(1)
        return [type(self)(*parts) for parts in zip(self.h.split(1), c, strict=True)]

    @classmethod
    def stack(cls, layers: Sequence["RNNState"]) -> Self:
        """Concatenate the states of layers, ``(1, D, B, H)`` each, from the bottom to the top."""
        cells = [layer.c for layer in layers if layer.c is not None]
        return cls(torch.cat([layer.h for layer in layers]), torch.cat(cells) if cells else None)

    def select(self, indices: Tensor) -> Self:
        """Return the state of the sequences at ``indices``, in that order; an index may occur more than once."""
        c = None if self.c is None else self.c.index_select(2, indices)
        return self._replace(h=self.h.index_select(2, indices), c=c)


def h_n_rows(layers: int, directions: int) -> Tensor:
    """Return the row of ``h_n`` that holds each layer and direction, ``(L, D)``, for display.

    Example:
        >>> h_n_rows(3, 2).tolist()
        [[0, 1], [2, 3], [4, 5]]
    """
    return RNNState.from_torch(torch.arange(layers * directions).view(-1, 1, 1), directions).h[:, :, 0, 0]
