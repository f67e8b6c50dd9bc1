"""The roofline of a training step: how long it would take if all but its main work were free.

On a CPU, the main work is its matrix multiplications. PyTorch counts them while the model runs forward and backward, so
a new attention or decoder needs no code here. On a GPU, it is its recurrent layers, as cuDNN computes them.
"""

import copy
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.benchmark.loops import computing
from seq2seq.data import Batch
from seq2seq.nn import Seq2Seq
from seq2seq.nn.rnn import run_rnn

aten = torch.ops.aten
MATMULS = (aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.baddbmm_)
"""PyTorch's matrix multiplications; the operands are the last two arguments."""

Shape = tuple[int, ...]


def roofline_seconds(model: Seq2Seq, batch: Batch, precision: str) -> float:
    """Return how long the matrix multiplications of a training step on a CPU take by themselves, padding included."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    inside = torch.get_float32_matmul_precision()
    return sum(n * matmul_seconds(*shapes, dtype, inside) for shapes, n in matmuls(model, batch).items())


def recurrent_seconds(model: Seq2Seq, batch: Batch, precision: str, device: torch.device) -> float:
    """Return how long the recurrent layers of a training step take; targets are read in one call by any decoder."""
    model = copy.deepcopy(model).to(device).train()
    layers: list[Any] = [(model.encoder.rnn, batch.source.size(1), batch.source_lengths)]
    layers += [(layer, batch.inputs.size(1), None) for layer in model.decoder.layers]
    works = [
        (rnn, torch.randn(len(batch.indices), steps, rnn.input_size, device=device, requires_grad=True), lengths)
        for rnn, steps, lengths in layers
    ]

    def step() -> None:
        with computing(precision, device), torch.autocast(device.type, torch.bfloat16, precision == "bf16-mixed"):
            for rnn, inputs, lengths in works:
                run_rnn(rnn, inputs, lengths)[0].sum().backward()

    return fastest(step, 0.1)


def matmuls(model: Seq2Seq, batch: Batch) -> Counter[tuple[Shape, Shape]]:
    """Return how often a training step multiplies matrices of each pair of shapes.

    Raises:
        NotImplementedError: If the model multiplies in another way, for example by a convolution.
    """
    counts: Counter[tuple[Shape, Shape]] = Counter()

    def count(*shapes: torch.Size, **_: object) -> int:
        counts[tuple(shapes[-2]), tuple(shapes[-1])] += 1
        return 1

    # In double precision, as oneDNN's LSTM for single precision hides its multiplications from the counter. So does
    # PyTorch's fused attention, which also has a form that is not fused.
    model = copy.deepcopy(model).double().train()
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(MATMULS, count))
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(batch.source, batch.source_lengths, batch.inputs).logits.sum().backward()
    unknown = counter.get_flop_counts()["Global"].keys() - set(MATMULS)
    if unknown:
        raise NotImplementedError(f"the limit of a step with {', '.join(map(str, unknown))} is not known")
    return counts


@cache
def matmul_seconds(left: Shape, right: Shape, dtype: torch.dtype, precision: str) -> float:  # noqa: ARG001 - a key
    """Return how long it takes to multiply matrices, with the current ``torch.get_float32_matmul_precision()``."""
    matrices = torch.randn(left, dtype=dtype), torch.randn(right, dtype=dtype)
    result = torch.empty(*left[:-1], right[-1], dtype=dtype)
    return fastest(lambda: torch.matmul(*matrices, out=result), 0.005)


def fastest(run: Callable[[], object], seconds: float) -> float:
    """Return the best of the times that a function takes within some seconds; other load only slows it down."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=seconds).times)
