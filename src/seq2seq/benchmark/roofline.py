"""The roofline of a training step: how long it would take if all but its main work were free.

On a CPU, the main work is its matrix multiplications. PyTorch counts them while the model runs forward and backward, so
a new attention or decoder needs no code here. On a GPU, it is its recurrent layers, as cuDNN computes them.
"""

import copy
import math
import time
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.benchmark.loops import computing
from seq2seq.data import Batch
from seq2seq.nn import Seq2Seq
from seq2seq.nn.rnn import run_rnn

TRIES = 5

aten = torch.ops.aten
MATMULS = (aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.baddbmm_)
"""PyTorch's matrix multiplications; the operands are the last two arguments."""


class Matmul(NamedTuple):
    """The shapes of a matrix multiplication, or of many at once.

    Attributes:
        left: ``(rows, inner)`` or ``(count, rows, inner)``.
        right: ``(inner, columns)`` or ``(count, inner, columns)``.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def flops(self) -> int:
        """Number of multiplications and additions."""
        return 2 * math.prod(self.left) * self.right[-1]


def roofline_seconds(model: Seq2Seq, batch: Batch, precision: str) -> float:
    """Return how long the matrix multiplications of a training step take by themselves.

    Args:
        model: Whose step it is.
        batch: The padding that the model multiplies is included.
        precision: ``32-true`` or ``bf16-mixed``.
    """
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    inside = torch.get_float32_matmul_precision()
    return sum(count * matmul_seconds(matmul, dtype, inside) for matmul, count in matmuls(model, batch).items())


def recurrent_seconds(model: Seq2Seq, batch: Batch, precision: str, device: torch.device) -> float:
    """Return how long the recurrent layers of a training step take by themselves: the best of some tries.

    Args:
        model: Whose step it is.
        batch: Its targets are read in one call, also by a decoder that loops over time.
        precision: ``32-true``, ``tf32`` or ``bf16-mixed``.
        device: Where to compute.
    """
    model = copy.deepcopy(model).to(device).train()
    encoder: Any = model.encoder
    layers: list[tuple[Any, int, Tensor | None]] = [(encoder.rnn, batch.source.size(1), batch.source_lengths)]
    layers += [(layer, batch.inputs.size(1), None) for layer in model.decoder.layers]
    works = [
        (rnn, torch.randn(len(batch.indices), steps, rnn.input_size, device=device, requires_grad=True), lengths)
        for rnn, steps, lengths in layers
    ]
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        with computing(precision, device), torch.autocast(device.type, torch.bfloat16, precision == "bf16-mixed"):
            for rnn, inputs, lengths in works:
                run_rnn(rnn, inputs, lengths)[0].sum().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matmuls(model: Seq2Seq, batch: Batch) -> Counter[Matmul]:
    """Return how often a training step on a batch does each matrix multiplication.

    Raises:
        NotImplementedError: If the model multiplies in another way, for example by a convolution.
    """
    counts: Counter[Matmul] = Counter()

    def count(*shapes: torch.Size, **_: object) -> int:
        matmul = Matmul(*(tuple(shape) for shape in shapes[-2:]))
        counts[matmul] += 1
        return matmul.flops

    # In double precision, as oneDNN's LSTM for single precision hides its multiplications from the counter. So does
    # PyTorch's fused attention, which also has a form that is not fused.
    model = copy.deepcopy(model).double().train()
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(MATMULS, count))
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(batch.source, batch.source_lengths, batch.inputs).logits.sum().backward()
    others = counter.get_flop_counts()["Global"].keys() - set(MATMULS)
    if others:
        raise NotImplementedError(f"the limit of a step with {', '.join(map(str, others))} is not known")
    return counts


@cache
def matmul_seconds(matmul: Matmul, dtype: torch.dtype, precision: str) -> float:  # noqa: ARG001 - part of the key
    """Return how long a matrix multiplication takes: the best of some tries, as other load only slows it down.

    Args:
        matmul: The shapes.
        dtype: Of the operands and the result.
        precision: The current ``torch.get_float32_matmul_precision()``.
    """
    left, right = torch.randn(matmul.left, dtype=dtype), torch.randn(matmul.right, dtype=dtype)
    result = torch.empty(*matmul.left[:-1], matmul.right[-1], dtype=dtype)
    repeats = min(100, max(1, int(4e7 / matmul.flops)))
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        for _ in range(repeats):
            torch.matmul(left, right, out=result)
        seconds.append((time.perf_counter() - start) / repeats)
    return min(seconds)
