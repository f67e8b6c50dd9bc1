"""The roofline of a training step: how long it would take if all but its matrix multiplications were free.

PyTorch counts them while the model runs forward and backward, so a new attention or decoder needs no code here.
"""

import copy
from collections import Counter
from functools import cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.benchmark.timing import computing
from seq2seq.data import Batch
from seq2seq.nn import Seq2Seq

aten = torch.ops.aten
MATMULS = (aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.baddbmm_)
"""PyTorch's matrix multiplications; the operands are the last two arguments."""


def roofline_seconds(model: Seq2Seq, batch: Batch, precision: str, device: torch.device) -> float:
    """Return how long the matrix multiplications of a training step take by themselves, padding included.

    Raises:
        NotImplementedError: If the model multiplies in another way, for example by a convolution.
    """
    counts: Counter[tuple[torch.Size, torch.Size]] = Counter()

    def count(*shapes: torch.Size, **_: object) -> int:
        counts[shapes[-2], shapes[-1]] += 1
        return 1

    # On the CPU in double precision, as cuDNN and oneDNN's LSTM for single precision hide their multiplications from
    # the counter. So does PyTorch's fused attention, which also has a form that is not fused.
    model = copy.deepcopy(model).cpu().double().train()
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(MATMULS, count))
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(batch.source, batch.source_lengths, batch.inputs).logits.sum().backward()
    if unknown := counter.get_flop_counts()["Global"].keys() - set(MATMULS):
        raise NotImplementedError(f"the limit of a step with {', '.join(map(str, unknown))} is not known")
    rounding = torch.get_float32_matmul_precision()
    return sum(n * matmul_seconds(*shapes, precision, device, rounding) for shapes, n in counts.items())


@cache
def matmul_seconds(left: torch.Size, right: torch.Size, precision: str, device: torch.device, _: str) -> float:
    """Return how long it takes to multiply matrices: the best of some times, as other load only slows it down."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    matrices = [torch.randn(shape, dtype=dtype, device=device) for shape in (left, right)]
    timer = Timer("torch.matmul(*matrices)", globals={"matrices": matrices}, num_threads=torch.get_num_threads())
    with computing(precision):
        return min(timer.blocked_autorange(min_run_time=0.005).times)
