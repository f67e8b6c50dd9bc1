"""The bridge: the encoder's final state to the decoder's initial state, layer by layer.

Tops are aligned, as the top layers are the ones that meet at attention and output: decoder layer ``j`` starts from
encoder layer ``max(0, j + L - L')``::

    L = 3, L' = 2                      L = 1, L' = 3

    encoder 2 ------> decoder 1                     decoder 2
    encoder 1 ------> decoder 0                     decoder 1
    encoder 0                          encoder 0 => decoder 0   (to all three)

Both directions of a layer stand side by side in ``h[l]``, which is ``h_n[2l]`` and ``h_n[2l + 1]`` in PyTorch's own
packing.
"""

import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError, check_choice
from seq2seq.nn.encoder import Encoder
from seq2seq.nn.state import RNNState

log = logging.getLogger(__name__)


class Handover(NamedTuple):
    """The sizes that a bridge joins.

    Attributes:
        sources: The encoder layer that each decoder layer starts from, L' of them.
        directions: D.
        encoder_size: H.
        decoder_size: H'.
    """

    sources: tuple[int, ...]
    directions: int
    encoder_size: int
    decoder_size: int


def side_by_side(layer: Tensor) -> Tensor:
    """Put a layer's directions side by side: ``(D, B, H)`` to ``(B, D * H)``, forward first."""
    return layer.transpose(0, 1).flatten(1)


class LinearRule(nn.Module):
    """``tanh(W [forward; backward] + b)`` with a ``W`` for each decoder layer (Bahdanau et al. 2015, appendix A.2.2).

    There the backward state alone is mapped, to one layer; here both directions are, to every layer.
    """

    def __init__(self, sizes: Handover) -> None:
        super().__init__()
        self.sources = sizes.sources
        input_size = sizes.directions * sizes.encoder_size
        self.maps = nn.ModuleList(nn.Linear(input_size, sizes.decoder_size) for _ in sizes.sources)

    def forward(self, layers: Tensor) -> Tensor:
        """Map ``(L, D, B, H)`` to ``(L', 1, B, H')``."""
        handed = [m(side_by_side(layers[s])) for s, m in zip(self.sources, self.maps, strict=True)]
        return torch.stack(handed).tanh().unsqueeze(1)


class TopRule(nn.Module):
    """``tanh(W [forward; backward] + b)`` of the encoder's top layer, the same for every decoder layer."""

    def __init__(self, sizes: Handover) -> None:
        super().__init__()
        self.num_layers = len(sizes.sources)
        self.map = nn.Linear(sizes.directions * sizes.encoder_size, sizes.decoder_size)

    def forward(self, layers: Tensor) -> Tensor:
        """Map ``(L, D, B, H)`` to ``(L', 1, B, H')``."""
        return self.map(side_by_side(layers[-1])).tanh().expand(self.num_layers, 1, -1, -1)


class LearnedRule(nn.Module):
    """A learnt initial state that is the same for every source: what the decoder knows of it comes by attention."""

    def __init__(self, sizes: Handover) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(len(sizes.sources), 1, 1, sizes.decoder_size))

    def forward(self, layers: Tensor) -> Tensor:
        """Return ``(L', 1, B, H')``; of ``layers``, ``(L, D, B, H)``, only B is read."""
        return self.start.expand(-1, -1, layers.size(2), -1)


class ConcatRule(nn.Module):
    """Both directions of a layer, side by side: H' = D * H."""

    def __init__(self, sizes: Handover) -> None:
        super().__init__()
        self.sources = sizes.sources

    def forward(self, layers: Tensor) -> Tensor:
        """Map ``(L, D, B, H)`` to ``(L', 1, B, D * H)``."""
        return torch.stack([side_by_side(layers[s]) for s in self.sources]).unsqueeze(1)


class MeanRule(nn.Module):
    """The mean of both directions of a layer: H' = H."""

    def __init__(self, sizes: Handover) -> None:
        super().__init__()
        self.sources = sizes.sources

    def forward(self, layers: Tensor) -> Tensor:
        """Map ``(L, D, B, H)`` to ``(L', 1, B, H)``."""
        return layers[list(self.sources)].mean(1, keepdim=True)


class ZerosRule(nn.Module):
    """Zero: nothing is handed over."""

    def __init__(self, sizes: Handover) -> None:
        super().__init__()
        self.shape = (len(sizes.sources), 1, sizes.decoder_size)

    def forward(self, layers: Tensor) -> Tensor:
        """Return ``(L', 1, B, H')``; of ``layers``, ``(L, D, B, H)``, only B is read."""
        num_layers, one, size = self.shape
        return layers.new_zeros(num_layers, one, layers.size(2), size)


BRIDGES = {
    "linear": LinearRule,
    "concat": ConcatRule,
    "mean": MeanRule,
    "top": TopRule,
    "learned": LearnedRule,
    "zeros": ZerosRule,
}
"""The bridges by the word that stands for them in a config (``model.bridge``)."""

WEIGHTED = ("linear", "top", "learned")
"""Those with weights, which can make an LSTM's cell for which the encoder has none."""


class Bridge(nn.Module):
    """Hand the encoder's final state over to a decoder of any cell, layer count and size.

    ======== ======================================================== ================
    name     decoder layer ``j`` starts from                          fits
    ======== ======================================================== ================
    linear   tanh of a linear map of both directions of its layer     any size
    concat   both directions of its layer, side by side               H' = D * H
    mean     the mean of both directions of its layer                 H' = H
    top      tanh of one linear map of the top layer                  any size
    learned  a learnt vector                                          any size
    zeros    zero                                                     any size
    ======== ======================================================== ================

    An LSTM's cell follows the same rule, with weights of its own. From a GRU to an LSTM, a bridge with weights makes
    the cell from the hidden state and the others start it at zero; from an LSTM to a GRU the cell is left behind. Both
    are logged when the bridge is built.

    Args:
        name: One of the above.
        encoder: The network whose state is handed over.
        num_layers: Of the decoder, L'.
        hidden_size: Of the decoder, H'.
        cell: Of the decoder, ``gru`` or ``lstm``.

    Raises:
        UserError: If there is no bridge of that name or the sizes do not fit it.

    Example:
        >>> encoder = Encoder(vocabulary_size=9, embedding_size=8, hidden_size=7, num_layers=3, cell="gru",
        ...                   bidirectional=True, dropout=0.0)
        >>> bridge = Bridge("concat", encoder=encoder, num_layers=2, hidden_size=14, cell="gru")
        >>> bridge(RNNState(torch.zeros(3, 2, 4, 7))).h.shape
        torch.Size([2, 1, 4, 14])
    """

    def __init__(self, name: str, *, encoder: Encoder, num_layers: int, hidden_size: int, cell: str) -> None:
        super().__init__()
        check_choice("model.bridge", name, BRIDGES)
        _check_size(name, encoder, hidden_size)
        offset = encoder.num_layers - num_layers
        sources = tuple(max(0, layer + offset) for layer in range(num_layers))
        sizes = Handover(sources, encoder.directions, encoder.hidden_size, hidden_size)
        self.name = name
        self.makes_cell = cell == "lstm"
        self.hidden = BRIDGES[name](sizes)
        cell_has_source = encoder.cell == "lstm" or name in WEIGHTED
        self.cell = BRIDGES[name](sizes) if self.makes_cell and cell_has_source else None
        if encoder.cell == "gru" and self.makes_cell and name not in ("learned", "zeros"):
            start = "is made from its hidden state" if self.cell else "starts at zero"
            log.info("model.bridge=%s: a GRU encoder has no cell, so the LSTM decoder's %s", name, start)
        if encoder.cell == "lstm" and not self.makes_cell:
            log.info("model.bridge=%s: a GRU decoder has no cell, so the LSTM encoder's is left behind", name)

    def forward(self, state: RNNState) -> RNNState:
        """Return the decoder's initial state, ``(L', 1, B, H')``, of the encoder's final one, ``(L, D, B, H)``."""
        h = self.hidden(state.h)
        if not self.makes_cell:
            return RNNState(h)
        if self.cell is None:
            return RNNState(h, torch.zeros_like(h))
        return RNNState(h, self.cell(state.h if state.c is None else state.c))


def _check_size(name: str, encoder: Encoder, hidden_size: int) -> None:
    fits = {"concat": encoder.output_size, "mean": encoder.hidden_size}
    needed = fits.get(name, hidden_size)
    if hidden_size == needed:
        return
    others = [other for other in BRIDGES if fits.get(other, hidden_size) == hidden_size]
    factor = needed // encoder.hidden_size
    raise UserError(
        f"model.decoder.hidden_size={hidden_size} does not fit model.bridge={name}, which needs {factor} x "
        f"model.encoder.hidden_size={encoder.hidden_size} = {needed}; use model.bridge={'|'.join(others)} "
        f"or model.decoder.hidden_size={needed}"
    )
