"""Verify the handoff of a model: where its final states occur in ``output``, and which decoder layers they reach.

Nothing here trusts the encoder's own account: positions are searched for, influence is measured by gradients, and each
sequence is encoded again without its batch.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.handoff.mistakes import WrongEncoder
from seq2seq.nn.bridge import Bridge
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.seq2seq import Seq2Seq
from seq2seq.nn.state import RNNState

EXACT = 1e-9
"""Maximum difference between equal numbers, in float64."""

DIRECTIONS = ("forward", "backward")


class Places(NamedTuple):
    """Where each final state occurs in ``output``, in the half of its own direction.

    Attributes:
        steps: The step whose output is nearest, ``(L, D, B)``.
        gaps: The largest difference from it, ``(L, D, B)``; above `EXACT`, the state occurs nowhere.
    """

    steps: Tensor
    gaps: Tensor


class Verification(NamedTuple):
    """What was measured on a padded batch.

    Attributes:
        lengths: Number of real tokens of each sequence, ``(B,)``.
        steps: Source steps of the padded batch, S.
        hidden_size: H.
        places: By part of the state, ``h`` and, with an LSTM, ``c``; before a deliberate mistake rearranges it.
        reach: By part of the decoder's state and of the encoder's, such as ``("c", "h")``: the mean absolute gradient
            of each decoder layer's initial state with respect to each row of ``h_n`` or ``c_n``, ``(L', L, D)``.
        of_output: Whether ``output`` reaches the decoder's initial state.
        compared: Whether the encoder has an ``nn.GRU`` or ``nn.LSTM`` that its state could be compared with.
        faults: What is wrong, one sentence each; empty for a correct handoff.
    """

    lengths: Tensor
    steps: int
    hidden_size: int
    places: dict[str, Places]
    reach: dict[tuple[str, str], Tensor]
    of_output: bool
    compared: bool
    faults: list[str]


def verify(model: Seq2Seq, source: Tensor, lengths: Tensor) -> Verification:
    """Encode a batch in float64 and check what becomes of its final states.

    Args:
        model: Not changed; a copy is used.
        source: Token ids, ``(B, S)``; the sequences should differ in length, or padding is not tested.
        lengths: On the CPU, ``(B,)``.
    """
    model = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        encoded: EncoderOutput = model.encoder(source, lengths)
        faults = [*check_final_positions(encoded, lengths), *check_padding_leak(model, encoded, source, lengths)]
        faults += check_against_pytorch(model.encoder, encoded, source, lengths)
    faults += check_training(model, source, lengths)
    if encoded.state.c is not None and bool((find(encoded.state.c, encoded.outputs).gaps <= EXACT).any()):
        faults.append("c_n occurs in output, as h_n does: it is not the cell")
    before, started = encode_with_gradients(model.encoder, source, lengths)
    gradients, crossing, of_output = reach(before, model.bridge(started.state))
    if crossing:
        faults.append("a sequence's initial decoder state depends on other sequences of the batch")
    faults += check_routing(model.bridge, gradients)
    places = {name: find(part.detach(), before.outputs.detach()) for name, part in parts(before.state)}
    size, compared = before.state.h.size(-1), comparable(model.encoder)
    return Verification(lengths, source.size(1), size, places, gradients, of_output, compared, faults)


def parts(state: RNNState) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each part of a state, ``h`` and, with an LSTM, ``c``."""
    yield "h", state.h
    if state.c is not None:
        yield "c", state.c


def find(final: Tensor, outputs: Tensor) -> Places:
    """Look for final states ``(L, D, B, H)`` among outputs ``(B, S, D * H)``."""
    halves = outputs.unflatten(-1, (final.size(1), -1)).permute(2, 0, 1, 3)  # (D, B, S, H)
    gaps, steps = (final.unsqueeze(3) - halves).abs().amax(-1).min(-1)
    return Places(steps, gaps)


def ends(lengths: Tensor, directions: int) -> Tensor:
    """Return the step at which each direction ends: the last real token, and the first, ``(D, B)``."""
    return torch.stack([lengths - 1, torch.zeros_like(lengths)][:directions])


def check_final_positions(encoded: EncoderOutput, lengths: Tensor) -> Iterator[str]:
    """Yield what is wrong with the top layer's final states, which must be in ``output`` at each sequence's ends."""
    _, directions, batch, size = encoded.state.h.shape
    halves = encoded.outputs.unflatten(-1, (directions, size))  # (B, S, D, H)
    top = len(encoded.state.h) - 1
    for direction, steps in enumerate(ends(lengths, directions)):
        gaps = (encoded.state.h[-1, direction] - halves[torch.arange(batch), steps, direction]).abs().amax(-1)
        for b in (gaps > EXACT).nonzero().flatten().tolist():
            place = f"output[{b}, {steps[b]}]"
            yield f"layer {top} {DIRECTIONS[direction]}, sequence {b}: h_n differs from {place} by {gaps[b]:.1g}"


def check_padding_leak(model: Seq2Seq, encoded: EncoderOutput, source: Tensor, lengths: Tensor) -> Iterator[str]:
    """Yield what changes when a sequence is encoded alone, without padding, and where the mask is wrong."""
    for b, length in enumerate(lengths.tolist()):
        alone: EncoderOutput = model.encoder(source[b : b + 1, :length], lengths[b : b + 1])
        for (name, together), (_, single) in zip(parts(encoded.state), parts(alone.state), strict=True):
            gaps = (together[:, :, b] - single[:, :, 0]).abs().amax(-1)  # (L, D)
            for layer, direction in (gaps > EXACT).nonzero().tolist():
                place = f"layer {layer} {DIRECTIONS[direction]}, sequence {b}"
                yield f"{place}: {name}_n alone and in the batch differ by {gaps[layer, direction]:.1g}"
        gap = (encoded.outputs[b, :length] - alone.outputs[0]).abs().max()
        if gap > EXACT:
            yield f"layer {len(encoded.state.h) - 1}, sequence {b}: output alone and in the batch differs by {gap:.1g}"
        if not torch.equal(encoded.mask[b].cpu(), torch.arange(source.size(1)) < length):
            yield f"sequence {b}: the mask is not True at its {length} real tokens and False at padding"


def check_training(model: Seq2Seq, source: Tensor, lengths: Tensor) -> Iterator[str]:
    """Yield what training, which may use ``nn.fast``, computes otherwise than prediction; without dropout."""
    training = copy.deepcopy(model).train()
    for module in training.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
    targets = torch.zeros(len(source), 2, dtype=torch.long)
    with torch.enable_grad():
        train: EncoderOutput = training.encoder(source, lengths)
        train_logits = training(source, lengths, targets).logits
    with torch.no_grad():
        right: EncoderOutput = model.encoder(source, lengths)
        logits = model(source, lengths, targets).logits
    pairs = [(f"{name}_n", part, dict(parts(train.state))[name]) for name, part in parts(right.state)]
    pairs += [("output", right.outputs, train.outputs), ("the decoder's prediction", logits, train_logits)]
    for name, expected, part in pairs:
        gap = (part - expected).abs().max()
        if not gap <= EXACT:
            yield f"in training, {name} differs by {gap:.1g} from what it is in prediction"


def without_mistake(encoder: nn.Module) -> nn.Module:
    """Return the encoder inside a `WrongEncoder`, or the encoder itself."""
    return encoder.inner if isinstance(encoder, WrongEncoder) else encoder


def comparable(encoder: nn.Module) -> bool:
    """Return whether an encoder has an ``embedding`` and an ``nn.GRU`` or ``nn.LSTM`` named ``rnn``."""
    encoder = without_mistake(encoder)
    return isinstance(getattr(encoder, "rnn", None), nn.RNNBase) and hasattr(encoder, "embedding")


def check_against_pytorch(encoder: nn.Module, encoded: EncoderOutput, source: Tensor, lengths: Tensor) -> Iterator[str]:
    """Yield which states differ from those that ``nn.GRU`` or ``nn.LSTM`` returns for a sequence alone.

    An encoder that is not `comparable` is skipped.
    """
    if not comparable(encoder):
        return
    inner: Any = without_mistake(encoder)
    layers, directions = encoded.state.h.shape[:2]
    for b, length in enumerate(lengths.tolist()):
        _, final = inner.rnn(inner.embedding(source[b : b + 1, :length]))
        alone = RNNState.from_torch(final, directions)
        for (name, part), (_, own) in zip(parts(encoded.state), parts(alone), strict=True):
            for layer in range(layers):
                for direction in range(directions):
                    gap = (part[layer, direction, b] - own[layer, direction, 0]).abs().max()
                    if gap > EXACT:
                        place = f"layer {layer} {DIRECTIONS[direction]}, sequence {b}"
                        yield f"{place}: {name}_n is not what PyTorch returns for it; they differ by {gap:.1g}"


def encode_with_gradients(encoder: nn.Module, source: Tensor, lengths: Tensor) -> tuple[EncoderOutput, EncoderOutput]:
    """Encode a batch with and without the deliberate mistake, if there is one.

    Returns:
        The correct output, whose tensors are leaves that require gradients, and the output with the mistake.
    """
    kept = []

    def inner(source: Tensor, lengths: Tensor) -> EncoderOutput:
        with torch.no_grad():
            encoded: EncoderOutput = without_mistake(encoder)(source, lengths)
        state = RNNState(*(part.clone().requires_grad_() for _, part in parts(encoded.state)))
        kept.append(encoded._replace(outputs=encoded.outputs.clone().requires_grad_(), state=state))
        return kept[-1]

    started = (
        encoder.mistake.apply(inner, source, lengths) if isinstance(encoder, WrongEncoder) else inner(source, lengths)
    )
    return kept[-1], started


def reach(encoded: EncoderOutput, handed: RNNState) -> tuple[dict[tuple[str, str], Tensor], bool, bool]:
    """Measure by gradients which final states reach the decoder's initial state.

    Args:
        encoded: A batch; its tensors are leaves.
        handed: What the bridge returns for it, ``(L', 1, B, H')``.

    Returns:
        For each part of the decoder's state and of the encoder's, the mean absolute gradient, ``(L', L, D)``; whether
        anything reaches from one sequence of the batch to another; and whether ``output`` reaches the decoder.
    """
    found, crossing, of_output = {}, False, False
    for to, initial in parts(handed):
        for of, leaf in parts(encoded.state):
            sizes = torch.stack([_gradient_sizes(layer[0], leaf) for layer in initial])  # (L', B, L, D, B)
            found[to, of] = sizes.diagonal(dim1=1, dim2=4).mean(-1)
            crossing |= bool(sizes.sum((0, 2, 3)).fill_diagonal_(0).any())
        if initial.requires_grad:
            (gradient,) = torch.autograd.grad(initial.sum(), encoded.outputs, retain_graph=True, allow_unused=True)
            of_output |= gradient is not None and bool(gradient.any())
    return found, crossing, of_output


def check_routing(bridge: nn.Module, gradients: Mapping[tuple[str, str], Tensor]) -> Iterator[str]:
    """Yield which states of the encoder reach the wrong decoder layer, or do not reach the right one.

    A map starts from the encoder layers that it declares to read; h reaches h, and c reaches c.
    A bridge that is not a `Bridge` is not checked.
    """
    if not isinstance(bridge, Bridge):
        return
    cell_from_h = ("c", "c") not in gradients  # the encoder has no cell
    for (to, of), sizes in gradients.items():
        for layer, reached_by in enumerate((sizes.sum(-1) > 0).tolist()):
            layers = len(reached_by)
            source = layers - 1 if bridge.hidden.reads == "top" else max(0, layer + layers - len(sizes))
            same_part = to == of or (to == "c" and cell_from_h and bridge.cell is not None)
            read = same_part and bridge.hidden.reads != "nothing"
            expected = [read and layer_of == source for layer_of in range(layers)]
            for layer_of, (reached, right) in enumerate(zip(reached_by, expected, strict=True)):
                if reached is not right:
                    verb = "reaches" if reached else "does not reach"
                    yield f"{of}_n of encoder layer {layer_of} {verb} the initial {to} of decoder layer {layer}"


def _gradient_sizes(initial: Tensor, leaf: Tensor) -> Tensor:
    """Return the mean absolute gradient of ``(B, H')`` with respect to ``(L, D, B, H)``, as ``(B, L, D, B)``."""
    if not initial.requires_grad:  # a bridge that reads nothing
        return leaf.new_zeros(len(initial), *leaf.shape[:3])
    gradients = [torch.autograd.grad(one.sum(), leaf, retain_graph=True, allow_unused=True)[0] for one in initial]
    return torch.stack([torch.zeros_like(leaf) if one is None else one for one in gradients]).abs().mean(-1)
