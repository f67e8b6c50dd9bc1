"""The same model trained as a tutorial would, with PyTorch's own layers: what `scripts/benchmark.py` compares with.

Sources are packed, PyTorch runs all steps of a layer in one call where a decoder allows it, attention is then one
product for all of them, and AdamW is as it comes, not fused.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.data import PAD, Batch
from seq2seq.nn import RNNState, Seq2Seq
from seq2seq.nn.decoders.bahdanau import BahdanauDecoder
from seq2seq.nn.decoders.gnmt import GNMTDecoder
from seq2seq.nn.decoders.luong import LuongDecoder


def plain_loop(model: Seq2Seq, batches: Sequence[Batch], precision: str) -> Callable[[], None]:
    """Return a pass of training the model by PyTorch's own layers."""

    def loss_of(batch: Batch) -> Tensor:
        return F.cross_entropy(plain_logits(model, batch).transpose(1, 2), batch.labels, ignore_index=PAD)

    return training_loop(model, loss_of, torch.optim.AdamW(model.parameters(), lr=1e-3), batches, precision)


def training_loop(
    module: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    precision: str,
) -> Callable[[], None]:
    """Return a pass of the plainest training loop: forward, backward, clip, step."""

    def run() -> None:
        module.train()
        for batch in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext():
                loss = loss_of(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()

    return run


def plain_logits(model: Seq2Seq, batch: Batch) -> Tensor:
    """Return what the model predicts for a batch under teacher forcing, ``(B, T, V)``."""
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    rate = decoder.dropout.p if model.training else 0.0
    embedded = F.dropout(encoder.embedding(batch.source), rate)
    packed = pack_padded_sequence(embedded, batch.source_lengths, batch_first=True, enforce_sorted=False)
    packed_outputs, after = encoder.rnn(packed)
    values, lengths = pad_packed_sequence(packed_outputs, batch_first=True)
    mask = torch.arange(values.size(1)) < lengths.unsqueeze(1)
    memory = decoder.attention.remember(values, mask)
    state: RNNState = model.bridge(RNNState.from_torch(after, encoder.directions))

    inputs = F.dropout(decoder.embedding(batch.inputs), rate)
    contexts, outputs = DECODERS[type(decoder)](decoder, inputs, memory, state, rate)
    combined = decoder.combine(torch.cat([contexts, outputs], dim=-1)).tanh()
    return decoder.predict(F.dropout(combined, rate))


def luong(decoder: Any, inputs: Tensor, memory: Any, state: RNNState, rate: float) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return the contexts and the top layer's outputs of a `LuongDecoder`, ``(B, T, ...)``."""
    outputs = inputs
    for layer, rnn in enumerate(decoder.layers):
        outputs, _ = rnn(F.dropout(outputs, rate) if layer else outputs, state.layer(layer).to_torch())
    return decoder.attention(outputs, memory)[0], outputs


def gnmt(decoder: Any, inputs: Tensor, memory: Any, state: RNNState, rate: float) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return the contexts and the top layer's outputs of a `GNMTDecoder`, ``(B, T, ...)``."""
    outputs, _ = decoder.layers[0](inputs, state.layer(0).to_torch())
    contexts, _ = decoder.attention(outputs, memory)
    for layer, rnn in enumerate(decoder.layers[1:], start=1):
        joined = F.dropout(torch.cat([outputs, contexts], dim=-1), rate)
        outputs, _ = rnn(joined, state.layer(layer).to_torch())
    return contexts, outputs


def bahdanau(decoder: Any, inputs: Tensor, memory: Any, state: RNNState, rate: float) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return the contexts and the top layer's outputs of a `BahdanauDecoder`, ``(B, T, ...)``."""
    layers = [state.layer(layer).to_torch() for layer in range(len(decoder.layers))]
    top = state.h[-1, 0].unsqueeze(1)  # (B, 1, H')
    contexts, outputs = [], []
    for step in inputs.split(1, dim=1):
        context, _ = decoder.attention(top, memory)
        top = torch.cat([step, context], dim=-1)
        for layer, rnn in enumerate(decoder.layers):
            top, layers[layer] = rnn(F.dropout(top, rate) if layer else top, layers[layer])
        contexts.append(context)
        outputs.append(top)
    return torch.cat(contexts, dim=1), torch.cat(outputs, dim=1)


DECODERS = {LuongDecoder: luong, GNMTDecoder: gnmt, BahdanauDecoder: bahdanau}
