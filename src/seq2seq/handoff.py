"""The handoff, measured: where each row of ``h_n`` stands in ``output``, and which decoder layers it reaches."""

from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.nn.model import Seq2Seq
from seq2seq.nn.state import RNNState


class Handoff(NamedTuple):
    """What was measured.

    Attributes:
        length: Real tokens of the row that was looked at.
        steps: Of the padded batch, S.
        places: Where in ``output`` each row of ``h_n`` stands, -1 where it stands nowhere, ``(L, D)``.
        reach: Whether a row of ``h_n`` has a say in a decoder layer's initial state, ``(L', L, D)``.
    """

    length: int
    steps: int
    places: Tensor
    reach: Tensor


def measure(model: Seq2Seq, source: Tensor, lengths: Tensor, row: int) -> Handoff:
    """Encode a batch and look where the final state of one of its rows stands and where it goes.

    Args:
        model: In evaluation mode.
        source: Token ids, ``(B, S)``.
        lengths: On the CPU, ``(B,)``.
        row: The row of the batch to look at.
    """
    encoded = model.encoder(source, lengths)
    directions = encoded.state.h.size(1)
    output = encoded.outputs[row].unflatten(-1, (directions, -1))  # (S, D, H)
    final = encoded.state.h[:, :, row]  # (L, D, H)
    same = (final.unsqueeze(0) == output.unsqueeze(1)).all(-1)  # (S, L, D)
    places = torch.where(same.any(0), same.int().argmax(0), -1)
    return Handoff(int(lengths[row]), source.size(1), places, reach(model, encoded.state))


def reach(model: Seq2Seq, state: RNNState) -> Tensor:
    """Return which rows of ``h_n`` each decoder layer's initial state depends on, by its gradient, ``(L', L, D)``."""
    h = state.h.detach().requires_grad_()
    reached = []
    for layer in model.bridge(RNNState(h, state.c)).h:
        # A bridge that reads nothing, or only weights of its own, has no gradient here at all.
        (gradient,) = (
            torch.autograd.grad(layer.sum(), h, retain_graph=True, allow_unused=True) if layer.requires_grad else [None]
        )
        reached.append(torch.zeros_like(h) if gradient is None else gradient)
    return torch.stack(reached).any(-1).any(-1)
