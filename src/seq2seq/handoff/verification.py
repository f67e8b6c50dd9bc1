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


def verify(model: Seq2Seq, source: Tensor, lengths: Tensor, features: Tensor | None = None) -> Verification:
    """Encode a batch in float64 and check what becomes of its final states.

    Args:
        model: Not changed; a copy is used.
        source: Token ids, ``(B, S)``; the sequences should differ in length, or padding is not tested.
        lengths: On the CPU, ``(B,)``.
        features: Ids, ``(B, F)``; None without features.
    """
    model = copy.deepcopy(model).cpu().double().eval()
    inner: Any = model.encoder.inner if isinstance(model.encoder, WrongEncoder) else model.encoder
    compared = isinstance(getattr(inner, "rnn", None), nn.RNNBase) and hasattr(inner, "embedding")
    with torch.no_grad():
        encoded, vectors = model.run_encoder(source, lengths, features)
        read = None if vectors is None else vectors.to_encoder  # (B, 1, E)
        faults = [*check_final_positions(encoded, lengths), *check_padding_leak(model, encoded, source, lengths, read)]
        if compared:
            faults += check_against_pytorch(inner, encoded, source, lengths, read)
    faults += check_training(model, source, lengths, features)
    if encoded.state.c is not None and bool((find(encoded.state.c, encoded.outputs).gaps <= EXACT).any()):
        faults.append("c_n occurs in output, as h_n does: it is not the cell")
    before, started = encode_with_gradients(model.encoder, inner, source, lengths, read)
    gradients, crossing, of_output = reach(before, model.bridge(started.state))
    if crossing:
        faults.append("a sequence's initial decoder state depends on other sequences of the batch")
    if isinstance(model.bridge, Bridge):
        faults += check_routing(model.bridge, gradients)
    places = {name: find(part.detach(), before.outputs.detach()) for name, part in parts(before.state)}
    size = before.state.h.size(-1)
    return Verification(lengths, source.size(1), size, places, gradients, of_output, compared, faults)


def parts(state: RNNState) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each part of a state, ``h`` and, with an LSTM, ``c``."""
    yield from ((name, part) for name, part in state._asdict().items() if part is not None)


def find(final: Tensor, outputs: Tensor) -> Places:
    """Look for final states ``(L, D, B, H)`` among outputs ``(B, S, D * H)``."""
    halves = outputs.unflatten(-1, (final.size(1), -1)).permute(2, 0, 1, 3)  # (D, B, S, H)
    gaps, steps = (final.unsqueeze(3) - halves).abs().amax(-1).min(-1)
    return Places(steps, gaps)


def check_final_positions(encoded: EncoderOutput, lengths: Tensor) -> Iterator[str]:
    """Yield what is wrong with the top layer's final states, which must be in ``output`` at each sequence's ends."""
    layers, directions, batch, size = encoded.state.h.shape
    halves = encoded.outputs.unflatten(-1, (directions, size))  # (B, S, D, H)
    for direction, steps in enumerate((lengths - 1, torch.zeros_like(lengths))[:directions]):
        gaps = (encoded.state.h[-1, direction] - halves[torch.arange(batch), steps, direction]).abs().amax(-1)
        for b in (gaps > EXACT).nonzero().flatten().tolist():
            place = f"layer {layers - 1} {DIRECTIONS[direction]}, sequence {b}"
            yield f"{place}: h_n differs from output[{b}, {steps[b]}] by {gaps[b]:.1g}"


def differences(state: RNNState, b: int, alone: RNNState) -> Iterator[tuple[str, str]]:
    """Yield which states of sequence ``b`` differ from those that it has ``alone``, and by how much."""
    for (name, part), (_, own) in zip(parts(state), parts(alone), strict=True):
        gaps = (part[:, :, b] - own[:, :, 0]).abs().amax(-1)  # (L, D)
        for layer, direction in (gaps > EXACT).nonzero().tolist():
            place = f"layer {layer} {DIRECTIONS[direction]}, sequence {b}: {name}_n"
            yield place, f"{gaps[layer, direction]:.1g}"


def alone_of(part: Tensor | None, b: int) -> tuple[Tensor, ...]:
    """Return sequence ``b`` of what an encoder reads beside the source; nothing if that is None."""
    return () if part is None else (part[b : b + 1],)


def check_padding_leak(
    model: Seq2Seq, encoded: EncoderOutput, source: Tensor, lengths: Tensor, read: Tensor | None
) -> Iterator[str]:
    """Yield what changes when a sequence is encoded alone, without padding, and where the mask is wrong."""
    for b, length in enumerate(lengths.tolist()):
        alone: EncoderOutput = model.encoder(source[b : b + 1, :length], lengths[b : b + 1], *alone_of(read, b))
        for place, gap in differences(encoded.state, b, alone.state):
            yield f"{place} alone and in the batch differ by {gap}"
        gap = (encoded.outputs[b, :length] - alone.outputs[0]).abs().max()
        if gap > EXACT:
            yield f"layer {len(encoded.state.h) - 1}, sequence {b}: output alone and in the batch differs by {gap:.1g}"
        if not torch.equal(encoded.mask[b].cpu(), torch.arange(source.size(1)) < length):
            yield f"sequence {b}: the mask is not True at its {length} real tokens and False at padding"


def check_against_pytorch(
    encoder: Any,  # noqa: ANN401
    encoded: EncoderOutput,
    source: Tensor,
    lengths: Tensor,
    read: Tensor | None,
) -> Iterator[str]:
    """Yield which states differ from those that an encoder's ``nn.GRU`` or ``nn.LSTM`` returns for a sequence alone."""
    for b, length in enumerate(lengths.tolist()):
        _, final = encoder.rnn(sum(alone_of(read, b), encoder.embedding(source[b : b + 1, :length])))
        for place, gap in differences(encoded.state, b, RNNState.from_torch(final, encoded.state.h.size(1))):
            yield f"{place} is not what PyTorch returns for it; they differ by {gap}"


def check_training(model: Seq2Seq, source: Tensor, lengths: Tensor, features: Tensor | None) -> Iterator[str]:
    """Yield what training, which may use ``nn.fast``, computes otherwise than prediction; without dropout."""
    training = copy.deepcopy(model).train()
    for module in training.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0

    def results(model: Seq2Seq) -> dict[str, Tensor]:
        encoded, _ = model.run_encoder(source, lengths, features)
        logits = model(source, lengths, torch.zeros(len(source), 2, dtype=torch.long), features).logits
        final = {f"{name}_n": part for name, part in parts(encoded.state)}
        return final | {"output": encoded.outputs, "the decoder's prediction": logits}

    trained = results(training)
    with torch.no_grad():
        expected = results(model)
    for name, part in trained.items():
        gap = (part - expected[name]).abs().max()
        if not gap <= EXACT:
            yield f"in training, {name} differs by {gap:.1g} from what it is in prediction"


def encode_with_gradients(
    encoder: nn.Module, inner: nn.Module, source: Tensor, lengths: Tensor, read: Tensor | None
) -> tuple[EncoderOutput, EncoderOutput]:
    """Return the correct output for a batch, whose tensors are leaves, and that with the mistake, if there is one."""
    kept = []

    def encode(source: Tensor, lengths: Tensor) -> EncoderOutput:
        with torch.no_grad():
            encoded: EncoderOutput = inner(source, lengths, *(() if read is None else (read,)))
        state = RNNState(*(part.clone().requires_grad_() for _, part in parts(encoded.state)))
        kept.append(encoded._replace(outputs=encoded.outputs.clone().requires_grad_(), state=state))
        return kept[-1]

    wrong = isinstance(encoder, WrongEncoder)
    started = encoder.mistake.apply(encode, source, lengths) if wrong else encode(source, lengths)
    return kept[-1], started


def gradient(value: Tensor, leaf: Tensor) -> Tensor:
    """Return the absolute gradient of the sum of a tensor; zero where it does not depend on the leaf."""
    return torch.autograd.grad(value.sum() + 0 * leaf.sum(), leaf, retain_graph=True)[0].abs()


def reach(encoded: EncoderOutput, handed: RNNState) -> tuple[dict[tuple[str, str], Tensor], bool, bool]:
    """Measure by gradients which final states of ``encoded`` reach ``handed``, the decoder's state, ``(L', 1, B, H')``.

    Returns:
        For each part of the decoder's state and of the encoder's, the mean absolute gradient, ``(L', L, D)``; whether
        anything reaches from one sequence of the batch to another; and whether ``output`` reaches the decoder.
    """
    found, crossing, of_output = {}, False, False
    for to, initial in parts(handed):
        of_output |= bool(gradient(initial, encoded.outputs).any())
        for of, leaf in parts(encoded.state):
            rows = [gradient(one, leaf).mean(-1) for layer in initial for one in layer[0]]  # of each sequence
            sizes = torch.stack(rows).view(len(initial), -1, *leaf.shape[:3])  # (L', B, L, D, B)
            found[to, of] = sizes.diagonal(dim1=1, dim2=4).mean(-1)
            crossing |= bool(sizes.sum((0, 2, 3)).fill_diagonal_(0).any())
    return found, crossing, of_output


def check_routing(bridge: Bridge, gradients: Mapping[tuple[str, str], Tensor]) -> Iterator[str]:
    """Yield which states of the encoder reach the wrong decoder layer, or do not reach the right one.

    A map starts from the encoder layers that it declares to read; h reaches h, and c reaches c.
    """
    cell_from_h = ("c", "c") not in gradients and bridge.cell is not None  # the encoder has no cell
    for (to, of), sizes in gradients.items():
        reached = sizes.sum(-1) > 0  # (L', L)
        expected, layers = torch.zeros_like(reached), reached.size(1)
        if bridge.hidden.reads != "nothing" and (to == of or (to == "c" and cell_from_h)):
            for layer in range(len(reached)):
                expected[layer, -1 if bridge.hidden.reads == "top" else max(0, layer + layers - len(reached))] = True
        for layer, source in (reached != expected).nonzero().tolist():
            verb = "reaches" if reached[layer, source] else "does not reach"
            yield f"{of}_n of encoder layer {source} {verb} the initial {to} of decoder layer {layer}"
