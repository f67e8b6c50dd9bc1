"""The matrix products of a training step, and how long a machine takes for them alone.

What training could reach at best, if nothing but them took any time: forward once, backward twice. Products over all
steps are counted as one, those of a recurrence as one a step, but for the gradients of its weights. Only real tokens
count, at the rate that products of the padded shapes have. Where a decoder loops over the context, some of what counts
as one waits for its step, so its share of this limit says less.
"""

import statistics
import time
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from seq2seq.data import Batch
from seq2seq.nn import Seq2Seq
from seq2seq.nn.attention import AdditiveAttention, Attention, GeneralAttention

TRIES = 5


class Product(NamedTuple):
    """``(rows, inner) @ (inner, columns)``, ``times`` times, of which the share ``real`` is for real tokens."""

    rows: int
    inner: int
    columns: int
    times: float
    real: float


def limit_seconds(model: Seq2Seq, batch: Batch, precision: str) -> float:
    """Return how long the matrix products of a training step on a batch would take by themselves."""
    half = precision == "bf16-mixed"
    return sum(
        one.times * one.real * seconds_of(one.rows, one.inner, one.columns, half) for one in products(model, batch)
    )


@cache
def seconds_of(rows: int, inner: int, columns: int, half: bool) -> float:
    """Return how long a product takes, the median of some tries."""
    dtype = torch.bfloat16 if half else torch.float32
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    result = torch.empty(rows, columns, dtype=dtype)
    repeats = min(100, max(1, int(2e7 / (rows * inner * columns))))
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, right, out=result)
        seconds.append((time.perf_counter() - start) / repeats)
    return statistics.median(seconds)


def products(model: Seq2Seq, batch: Batch) -> Iterator[Product]:
    """Yield the products of a training step, forward and backward."""
    (rows, source), target = batch.source.shape, batch.inputs.size(1)
    source_real = float(batch.source_lengths.sum()) / (rows * source)
    target_real = float(batch.target_lengths.sum()) / (rows * target)
    for rnn, steps, real in recurrent(model, source, source_real, target, target_real):
        for layer in range(rnn.num_layers):
            for suffix in ("", "_reverse")[: 1 + rnn.bidirectional]:
                size = getattr(rnn, f"weight_ih_l{layer}{suffix}").size(1)
                gates, hidden = getattr(rnn, f"weight_hh_l{layer}{suffix}").shape
                yield from linear(rows * steps, size, gates, real)
                yield Product(rows, hidden, gates, steps, real)  # forward, a step after the other
                yield Product(rows, gates, hidden, steps, real)  # back to the state before
                yield Product(hidden, rows * steps, gates, 1, real)  # to the weights, all steps at once
    yield from linear_maps(model, rows, (source, source_real), (target, target_real))
    attention = model.decoder.attention
    both = source_real * target_real
    query, value = key_and_value_sizes(attention)
    if query:  # a product of queries and keys for each row of the batch
        yield from linear(target, query, source, both, times=rows)
    if value:  # and one of weights and values
        yield from linear(target, source, value, both, times=rows)


def linear_maps(model: Seq2Seq, rows: int, source: tuple[int, float], target: tuple[int, float]) -> Iterator[Product]:
    """Yield the products of all linear maps, given the steps and the real share of either side."""
    attention = model.decoder.attention
    of_source = {module for name, module in attention.named_modules() if name in ("key", "value")}  # pyright: ignore[reportAttributeAccessIssue]
    for module in model.decoder.modules():
        if isinstance(module, nn.Linear):
            steps, real = source if module in of_source else target
            if isinstance(attention, AdditiveAttention) and module is attention.score:  # every query meets every key
                steps, real = source[0] * target[0], source[1] * target[1]
            yield from linear(rows * steps, module.in_features, module.out_features, real)
    for module in model.bridge.modules():
        if isinstance(module, nn.Linear):
            yield from linear(rows, module.in_features, module.out_features, 1.0)


def key_and_value_sizes(attention: Attention) -> tuple[int, int]:
    """Return the sizes in which queries meet keys and weights meet values by a product; 0 where there is none."""
    if isinstance(attention, GeneralAttention):
        return attention.key.out_features, attention.context_size
    return 0 if isinstance(attention, AdditiveAttention) else attention.context_size, attention.context_size


def recurrent(
    model: Seq2Seq, source: int, source_real: float, target: int, target_real: float
) -> Iterator[tuple[nn.RNNBase, int, float]]:
    """Yield the recurrent networks with the number of their steps and the share of them that is real."""
    for part, steps, real in ((model.encoder, source, source_real), (model.decoder, target, target_real)):
        for module in part.modules():
            if isinstance(module, nn.RNNBase):
                yield module, steps, real


def linear(rows: int, inner: int, columns: int, real: float, times: float = 1) -> Iterator[Product]:
    """Yield the three products of a linear map: forward, to its input and to its weights."""
    yield Product(rows, inner, columns, times, real)
    yield Product(rows, columns, inner, times, real)
    yield Product(inner, rows, columns, times, real)
