"""Recurrent layers one step at a time, for decoders in which a step waits for what the step before has found.

The equations are those of PyTorch's ``nn.GRU`` and ``nn.LSTM``, whose parameters are used.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.nn.fast.packing import Packing, after_last
from seq2seq.nn.state import RNNState


class Steps:
    """Runs layers step by step over inputs that are known, and something more that each step finds out.

    Args:
        layers: One-layer networks, from the bottom up; the bottom one reads inputs and, beside them, ``found``.
        inputs: Known for all steps, packed, ``(N, E)``.
        sizes: Rows at each step; those that have ended, the last ones, leave the work.
        state: Before the first step, in the order of the packing, ``(L', 1, B, H')``.
        dropout: Between layers.
    """

    def __init__(
        self,
        layers: Iterable[Any],
        inputs: Tensor,
        sizes: Sequence[int],
        state: RNNState,
        dropout: Callable[[Tensor], Tensor],
    ) -> None:
        self._layers = [
            (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0) for layer in layers
        ]
        self._dropout = dropout
        self._h = [[h] for h in state.h[:, 0]]  # of each layer, before the first step and after each
        self._c = None if state.c is None else [[c] for c in state.c[:, 0]]
        weight, _, bias, _ = self._layers[0]
        self._known = F.linear(inputs, weight[:, : inputs.size(-1)], bias).split(sizes)
        self._found_weight = weight[:, inputs.size(-1) :]

    def top(self, rows: int) -> Tensor:
        """Return the top layer's state of the rows that go on, ``(rows, H')``."""
        return first(self._h[-1][-1], rows)

    def state(self) -> RNNState:
        """Return the state of all layers after each row's last step, ``(L', 1, B, H')``."""
        h, *c = (
            torch.stack([after_last(layer[1:]) for layer in part]).unsqueeze(1)
            for part in (self._h, self._c)
            if part is not None
        )
        return RNNState(h, *c)

    def step(self, number: int, found: Tensor) -> Tensor:
        """Take a step of all layers with ``found``, ``(rows, ...)``; return the top layer's output, ``(rows, H')``."""
        output = found
        gates = self._known[number] + F.linear(found, self._found_weight)
        for layer, (weight, weight_h, bias, bias_h) in enumerate(self._layers):
            if layer > 0:
                gates = F.linear(self._dropout(output), weight, bias)
            h = first(self._h[layer][-1], len(found))
            recurrent = F.linear(h, weight_h, bias_h)
            if self._c is None:
                output = gru(gates, recurrent, h)
            else:
                output, c = lstm(gates + recurrent, first(self._c[layer][-1], len(found)))
                self._c[layer].append(c)
            self._h[layer].append(output)
        return output


def first(states: Tensor, rows: int) -> Tensor:
    """Return the first rows, without a record for autograd where that is all of them."""
    return states if len(states) == rows else states[:rows]


def joined(weights: Sequence[Tensor | None], packing: Packing) -> Tensor | None:
    """Return the weights of all steps, ``(B, T, S)``, of those of each, ``(rows, 1, S)``; None without attention."""
    found = [step for step in weights if step is not None]
    return packing.pad(torch.cat(found).squeeze(1)) if found else None


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
