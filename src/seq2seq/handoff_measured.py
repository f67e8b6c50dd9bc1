"""The handoff, measured and proved: where the final states stand, where they go, and what is wrong with them.

Nothing here believes what the encoder says of itself: positions are searched for, arrows are gradients, and a row is
encoded once more without its batch.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.handoff import WrongEncoder
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.model import Seq2Seq
from seq2seq.nn.state import RNNState

EXACT = 1e-9
"""Largest difference, in float64, between numbers that are the same."""

DIRECTIONS = ("forward", "backward")


class Places(NamedTuple):
    """Where each final state stands in ``output``, in the half of its own direction.

    Attributes:
        steps: The step whose output is nearest, ``(L, D, B)``.
        gaps: The largest difference from it, ``(L, D, B)``; 0 if the state stands there, otherwise it stands nowhere.
    """

    steps: Tensor
    gaps: Tensor


class Handoff(NamedTuple):
    """What was measured on a padded batch.

    Attributes:
        lengths: Real tokens of each row, ``(B,)``.
        steps: Of the padded batch, S.
        hidden_size: H.
        places: By state, ``h`` and, of an LSTM, ``c``.
        reach: By the decoder's state and the encoder's, such as ``("c", "h")``: the mean size of the gradient of each
            decoder layer's initial state with respect to each row of ``h_n`` or ``c_n``, ``(L', L, D)``.
        faults: What is not as it must be, a sentence each; empty for a right handoff.
    """

    lengths: Tensor
    steps: int
    hidden_size: int
    places: dict[str, Places]
    reach: dict[tuple[str, str], Tensor]
    faults: list[str]


def measure(model: Seq2Seq, source: Tensor, lengths: Tensor) -> Handoff:
    """Encode a batch, in float64, and look at what becomes of its final states.

    Args:
        model: It is left as it is.
        source: Token ids, ``(B, S)``; the rows should differ in length, or nothing is shown about padding.
        lengths: On the CPU, ``(B,)``.
    """
    model = copy.deepcopy(model).double().eval()
    encoder = model.encoder
    with torch.no_grad():
        encoded: EncoderOutput = encoder(source, lengths)
        # A mistake that is made on purpose is a part of the way: rows are shown as they are before it.
        before: EncoderOutput = encoder.wrong(source, lengths) if isinstance(encoder, WrongEncoder) else encoded
        faults = [*ends_missed(encoded, lengths), *padding_let_in(model, encoded, source, lengths)]
    if encoded.state.c is not None and bool((find(encoded.state.c, encoded.outputs).gaps <= EXACT).any()):
        faults.append("c_n stands in output, as h_n does: it is not the cell")
    leaves = RNNState(*(part.requires_grad_() for _, part in parts(before.state)))
    gradients, crossing = reach(model, before._replace(state=leaves), source, lengths)
    if crossing:
        faults.append("a row's initial state in the decoder depends on other rows of the batch")
    places = {name: find(part.detach(), before.outputs) for name, part in parts(before.state)}
    return Handoff(lengths, source.size(1), before.state.h.size(-1), places, gradients, faults)


def parts(state: RNNState) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the tensor of a state's parts, ``h`` and, of an LSTM, ``c``."""
    yield "h", state.h
    if state.c is not None:
        yield "c", state.c


def find(final: Tensor, outputs: Tensor) -> Places:
    """Look for final states ``(L, D, B, H)`` among outputs ``(B, S, D * H)``."""
    halves = outputs.unflatten(-1, (final.size(1), -1)).permute(2, 0, 1, 3)  # (D, B, S, H)
    gaps, steps = (final.unsqueeze(3) - halves).abs().amax(-1).min(-1)
    return Places(steps, gaps)


def ends(lengths: Tensor, directions: int) -> Tensor:
    """Return the step at which each direction ends: a row's last real token, and its first, ``(D, B)``."""
    return torch.stack([lengths - 1, torch.zeros_like(lengths)][:directions])


def ends_missed(encoded: EncoderOutput, lengths: Tensor) -> Iterator[str]:
    """Yield what is wrong with the top layer's final states, which must stand in ``output`` at each row's own ends."""
    _, directions, rows, size = encoded.state.h.shape
    halves = encoded.outputs.unflatten(-1, (directions, size))  # (B, S, D, H)
    top = len(encoded.state.h) - 1
    for direction, steps in enumerate(ends(lengths, directions)):
        gaps = (encoded.state.h[-1, direction] - halves[torch.arange(rows), steps, direction]).abs().amax(-1)
        for row in (gaps > EXACT).nonzero().flatten().tolist():
            place = f"output[{row}, {steps[row]}]"
            yield f"layer {top} {DIRECTIONS[direction]}, row {row}: h_n differs from {place} by {gaps[row]:.1g}"


def padding_let_in(model: Seq2Seq, encoded: EncoderOutput, source: Tensor, lengths: Tensor) -> Iterator[str]:
    """Yield what changes when a row is encoded alone, without padding, and where the mask is wrong."""
    for row, length in enumerate(lengths.tolist()):
        alone: EncoderOutput = model.encoder(source[row : row + 1, :length], lengths[row : row + 1])
        for (name, together), (_, single) in zip(parts(encoded.state), parts(alone.state), strict=True):
            gaps = (together[:, :, row] - single[:, :, 0]).abs().amax(-1)  # (L, D)
            for layer, direction in (gaps > EXACT).nonzero().tolist():
                place = f"layer {layer} {DIRECTIONS[direction]}, row {row}"
                yield f"{place}: {name}_n alone and in the batch differ by {gaps[layer, direction]:.1g}"
        gap = (encoded.outputs[row, :length] - alone.outputs[0]).abs().max()
        if gap > EXACT:
            yield f"layer {len(encoded.state.h) - 1}, row {row}: output alone and in the batch differs by {gap:.1g}"
        if not torch.equal(encoded.mask[row].cpu(), torch.arange(source.size(1)) < length):
            yield f"row {row}: the mask is not True at its {length} real tokens and False at padding"


def reach(
    model: Seq2Seq, encoded: EncoderOutput, source: Tensor, lengths: Tensor
) -> tuple[dict[tuple[str, str], Tensor], bool]:
    """Measure how far each final state reaches into the decoder, by gradients.

    Args:
        model: Whose bridge, and mistake if it makes one on purpose, are the way.
        encoded: The batch, before any mistake; its state's parts are leaves that require gradients.
        source: The batch.
        lengths: Of its rows.

    Returns:
        For each of the decoder's states and each of the encoder's the mean size of the gradient, ``(L', L, D)``, and
        whether anything reaches from one row of the batch to another.
    """
    started = encoded
    if isinstance(model.encoder, WrongEncoder):
        started = model.encoder.encode(lambda *_: encoded, source, lengths)
    handed: RNNState = model.bridge(started.state)
    found, crossing = {}, False
    for to, initial in parts(handed):
        for of, leaf in parts(encoded.state):
            sizes = torch.stack([_gradient_sizes(layer[0], leaf) for layer in initial])  # (L', B, L, D, B)
            found[to, of] = sizes.diagonal(dim1=1, dim2=4).mean(-1)
            crossing |= bool(sizes.sum((0, 2, 3)).fill_diagonal_(0).any())
    return found, crossing


def _gradient_sizes(initial: Tensor, leaf: Tensor) -> Tensor:
    """Return the mean size of the gradient of each row of ``(B, H')`` by all states ``(L, D, B, H)``: (B, L, D, B)."""
    if not initial.requires_grad:  # a bridge that reads nothing
        return leaf.new_zeros(len(initial), *leaf.shape[:3])
    rows = [torch.autograd.grad(row.sum(), leaf, retain_graph=True, allow_unused=True)[0] for row in initial]
    return torch.stack([torch.zeros_like(leaf) if row is None else row for row in rows]).abs().mean(-1)
