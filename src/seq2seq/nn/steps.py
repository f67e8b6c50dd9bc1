"""Recurrent layers one step at a time, for decoders in which a step waits for what the step before has found.

The equations are those of PyTorch's ``nn.GRU`` and ``nn.LSTM``, whose parameters are used.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.nn.state import RNNState


class Steps:
    """Runs layers step by step over inputs that are known, and something more that each step finds out.

    Args:
        layers: One-layer networks, from the bottom up; the bottom one reads inputs and, beside them, ``found``.
        inputs: Known for all steps, ``(B, T, E)``.
        state: Before the first step, ``(L', 1, B, H')``.
        dropout: Between layers.
    """

    def __init__(
        self, layers: Iterable[Any], inputs: Tensor, state: RNNState, dropout: Callable[[Tensor], Tensor]
    ) -> None:
        self._layers = [
            (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0) for layer in layers
        ]
        self._dropout = dropout
        self._h = list(state.h[:, 0])
        self._c = None if state.c is None else list(state.c[:, 0])
        weight, _, bias, _ = self._layers[0]
        self._known = F.linear(inputs, weight[:, : inputs.size(-1)], bias)  # (B, T, gates * H')
        self._found_weight = weight[:, inputs.size(-1) :]

    def top(self) -> Tensor:
        """Return the top layer's state, ``(B, H')``."""
        return self._h[-1]

    def state(self) -> RNNState:
        """Return the state of all layers, ``(L', 1, B, H')``."""
        return RNNState(
            torch.stack(self._h).unsqueeze(1), None if self._c is None else torch.stack(self._c).unsqueeze(1)
        )

    def step(self, number: int, found: Tensor) -> Tensor:
        """Take a step of all layers with ``found``, ``(B, ...)``, and return the top layer's output, ``(B, H')``."""
        gates = self._known[:, number] + F.linear(found, self._found_weight)
        for layer, (weight, weight_h, bias, bias_h) in enumerate(self._layers):
            if layer > 0:
                gates = F.linear(self._dropout(self._h[layer - 1]), weight, bias)
            recurrent = F.linear(self._h[layer], weight_h, bias_h)
            if self._c is None:
                self._h[layer] = gru(gates, recurrent, self._h[layer])
            else:
                self._h[layer], self._c[layer] = lstm(gates + recurrent, self._c[layer])
        return self._h[-1]


def gru(given: Tensor, recurrent: Tensor, h: Tensor) -> Tensor:
    """Return a GRU's next state, of what its gates get from its input and from its state, ``(B, 3 * H)``, and it."""
    size = 2 * h.size(-1)
    reset, update = (given[:, :size] + recurrent[:, :size]).sigmoid().chunk(2, dim=-1)
    new = (given[:, size:] + reset * recurrent[:, size:]).tanh()
    return torch.lerp(new, h.to(new.dtype), update)  # under autocast, h may come from the bridge in another precision


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return an LSTM's next h and c, of what its gates get, ``(B, 4 * H)``, and c."""
    keep_new, keep_old, new, out = gates.chunk(4, dim=-1)
    c = keep_old.sigmoid() * c + keep_new.sigmoid() * new.tanh()
    return out.sigmoid() * c.tanh(), c
