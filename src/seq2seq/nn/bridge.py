"""The bridge: from the encoder's final state to the decoder's initial state, layer by layer.

The top layers are aligned, because attention and the output layer read those: decoder layer ``j`` starts from encoder
layer ``max(0, j + L - L')``::

    L = 3, L' = 2                      L = 1, L' = 3

    encoder 2 ------> decoder 1                     decoder 2
    encoder 1 ------> decoder 0                     decoder 1
    encoder 0                          encoder 0 => decoder 0   (to all three)

The two directions of layer ``l`` are ``h[l, 0]`` and ``h[l, 1]``; in PyTorch, they are ``h_n[2l]`` and ``h_n[2l + 1]``.
"""

import logging
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from seq2seq.nn.encoder import Encoder
from seq2seq.nn.state import RNNState

log = logging.getLogger(__name__)


def side_by_side(layer: Tensor) -> Tensor:
    """Concatenate a layer's directions, forward first: ``(D, B, H)`` to ``(B, D * H)``."""
    return layer.transpose(0, 1).flatten(1)


class StateMap(nn.Module):
    """Maps h or c from the encoder's final state, ``(L, D, B, H)``, to the decoder's initial one, ``(L', 1, B, H')``.

    Args:
        sources: The encoder layer that each of the L' decoder layers starts from.
        directions: Number of directions of the encoder, D.
        encoder_size: Hidden size of the encoder, H.
        decoder_size: Hidden size of the decoder, H'.
    """

    reads: ClassVar[Literal["aligned", "top", "nothing"]] = "aligned"
    """Which encoder layer a decoder layer starts from: its own of ``sources``, the top one, or none."""

    has_weights: ClassVar[bool] = False
    """Whether the map has parameters, and can therefore compute an LSTM's cell state from a GRU's hidden state."""

    def __init__(self, sources: Sequence[int], directions: int, encoder_size: int, decoder_size: int) -> None:
        super().__init__()
        self.sources = list(sources)
        self.input_size = directions * encoder_size
        self.size = decoder_size
        self.make_weights()

    def make_weights(self) -> None:
        """Create the parameters, if the map has any."""

    @staticmethod
    def required_size(directions: int, encoder_size: int) -> int | None:  # noqa: ARG004
        """Return the only decoder size H' that fits D directions of H units; None if every size fits."""
        return None


class LinearMap(StateMap):
    """``tanh(W [forward; backward] + b)`` with a ``W`` for each decoder layer (Bahdanau et al. 2015, appendix A.2.2).

    In the paper only the backward state is mapped, to a single layer; here both directions are, to every layer.
    """

    has_weights = True

    def make_weights(self) -> None:
        """Create one linear layer per decoder layer."""
        self.maps = nn.ModuleList(nn.Linear(self.input_size, self.size) for _ in self.sources)

    def forward(self, layers: Tensor) -> Tensor:
        """Map each layer with its own weights."""
        mapped = [m(side_by_side(layers[s])) for s, m in zip(self.sources, self.maps, strict=True)]
        return torch.stack(mapped).tanh().unsqueeze(1)


class TopMap(StateMap):
    """``tanh(W [forward; backward] + b)`` of the encoder's top layer, the same for every decoder layer."""

    reads = "top"
    has_weights = True

    def make_weights(self) -> None:
        """Create the linear layer."""
        self.map = nn.Linear(self.input_size, self.size)

    def forward(self, layers: Tensor) -> Tensor:
        """Map the top layer and repeat it."""
        return self.map(side_by_side(layers[-1])).tanh().expand(len(self.sources), 1, -1, -1)


class LearnedMap(StateMap):
    """A learned initial state, the same for every source: the decoder knows the source through attention only."""

    reads = "nothing"
    has_weights = True

    def make_weights(self) -> None:
        """Create the initial state."""
        self.start = nn.Parameter(torch.zeros(len(self.sources), 1, 1, self.size))

    def forward(self, layers: Tensor) -> Tensor:
        """Repeat the learned state for each sequence."""
        return self.start.expand(-1, -1, layers.size(2), -1)


class ConcatMap(StateMap):
    """Both directions of a layer, concatenated: H' = D * H."""

    @staticmethod
    def required_size(directions: int, encoder_size: int) -> int:
        """Return D * H."""
        return directions * encoder_size

    def forward(self, layers: Tensor) -> Tensor:
        """Concatenate the directions of each layer."""
        return torch.stack([side_by_side(layers[s]) for s in self.sources]).unsqueeze(1)


class MeanMap(StateMap):
    """The mean of both directions of a layer: H' = H."""

    @staticmethod
    def required_size(directions: int, encoder_size: int) -> int:  # noqa: ARG004
        """Return H."""
        return encoder_size

    def forward(self, layers: Tensor) -> Tensor:
        """Average the directions of each layer."""
        return layers[self.sources].mean(1, keepdim=True)


class ZeroMap(StateMap):
    """All zeros: nothing is handed over."""

    reads = "nothing"

    def forward(self, layers: Tensor) -> Tensor:
        """Return zeros for each sequence."""
        return layers.new_zeros(len(self.sources), 1, layers.size(2), self.size)


BRIDGES: dict[str, type[StateMap]] = {
    "linear": LinearMap,
    "concat": ConcatMap,
    "mean": MeanMap,
    "top": TopMap,
    "learned": LearnedMap,
    "zeros": ZeroMap,
}
"""Registry of bridges: config name to class."""


class Bridge(nn.Module):
    """Hand the encoder's final state over to a decoder of any cell, layer count and size.

    h and c have a map each: see the classes in `BRIDGES`. From a GRU to an LSTM, a bridge with weights computes the
    cell state from the hidden state, and any other starts it at zero; from an LSTM to a GRU, the cell state is dropped.
    Both are logged when the bridge is built.

    Args:
        name: A key of `BRIDGES`.
        encoder: The encoder whose state is handed over.
        num_layers: Number of decoder layers, L'.
        hidden_size: Hidden size of the decoder, H'.
        cell: Cell of the decoder, ``gru`` or ``lstm``.

    Raises:
        ValueError: If there is no bridge of that name, or the sizes do not fit it.

    Example:
        >>> encoder = Encoder(vocabulary_size=9, embedding_size=8, hidden_size=7, num_layers=3, cell="gru",
        ...                   bidirectional=True, dropout=0.0)
        >>> bridge = Bridge("concat", encoder=encoder, num_layers=2, hidden_size=14, cell="gru")
        >>> bridge(RNNState(torch.zeros(3, 2, 4, 7))).h.shape
        torch.Size([2, 1, 4, 14])
    """

    def __init__(self, name: str, *, encoder: Encoder, num_layers: int, hidden_size: int, cell: str) -> None:
        super().__init__()
        if name not in BRIDGES:
            raise ValueError(f"model.bridge={name} must be one of {', '.join(BRIDGES)}")
        _check_size(name, encoder, hidden_size)
        offset = encoder.num_layers - num_layers
        sources = [max(0, layer + offset) for layer in range(num_layers)]
        sizes = (sources, encoder.directions, encoder.hidden_size, hidden_size)
        self.makes_cell = cell == "lstm"
        self.hidden = BRIDGES[name](*sizes)
        cell_has_source = encoder.cell == "lstm" or BRIDGES[name].has_weights
        self.cell = BRIDGES[name](*sizes) if self.makes_cell and cell_has_source else None
        if encoder.cell == "gru" and self.makes_cell and self.hidden.reads != "nothing":
            start = "is made from its hidden state" if self.cell else "starts at zero"
            log.info("model.bridge=%s: a GRU encoder has no cell, so the LSTM decoder's %s", name, start)
        if encoder.cell == "lstm" and not self.makes_cell:
            log.info("model.bridge=%s: a GRU decoder has no cell, so the LSTM encoder's is dropped", name)

    def forward(self, state: RNNState) -> RNNState:
        """Return the decoder's initial state, ``(L', 1, B, H')``, given the encoder's final one, ``(L, D, B, H)``."""
        h = self.hidden(state.h)
        if not self.makes_cell:
            return RNNState(h)
        if self.cell is None:
            return RNNState(h, torch.zeros_like(h))
        return RNNState(h, self.cell(state.h if state.c is None else state.c))


def _check_size(name: str, encoder: Encoder, hidden_size: int) -> None:
    required = {bridge: kind.required_size(encoder.directions, encoder.hidden_size) for bridge, kind in BRIDGES.items()}
    needed = required[name]
    if needed is None or needed == hidden_size:
        return
    fitting = [bridge for bridge, size in required.items() if size in (None, hidden_size)]
    raise ValueError(
        f"model.decoder.hidden_size={hidden_size} does not fit model.bridge={name}, which needs "
        f"{needed // encoder.hidden_size} x model.encoder.hidden_size={encoder.hidden_size} = {needed}; "
        f"use model.bridge={'|'.join(fitting)} or model.decoder.hidden_size={needed}"
    )
