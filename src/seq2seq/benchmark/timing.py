"""How cases are timed: in rounds, and against the roofline, which is the time of their matrix multiplications alone."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer, timer  # which wait for the GPU
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.data import Batch
from seq2seq.nn import Seq2Seq
from seq2seq.runs.threads import available_cores
from seq2seq.training.build import matmul_precision


class Case(NamedTuple):
    """What is timed.

    Attributes:
        name: The settings that it times.
        variant: ``trainer``, ``textbook``, a number of processes or workers, or empty: a bare loop, or a search.
        run: Runs a pass over all batches. It returns the seconds that count, or None if all do.
        batches: What a pass reads.
        limit: Seconds that the matrix multiplications of a pass take alone; None if unknown.
        waiting: Seconds that training waits for the data of a pass, which ``run`` leaves out; None if unknown.
    """

    name: str
    variant: str
    run: Callable[[], float | None]
    batches: Sequence[Batch]
    limit: float | None = None
    waiting: float | None = None


def measure(cases: Sequence[Case], rounds: int, device: torch.device, *, busy: bool = False) -> list[dict[str, Any]]:
    """Return a row of results for each case: medians over rounds, which follow one of warm-up, and the spread.

    Each round runs a pass of every case, so that other load on the machine affects all alike. If ``busy``, it also runs
    one of every case beside `busy_processes`.
    """
    passes, beside = [], []
    for _ in range(rounds + 1):
        passes.append([timed_pass(case, device) for case in cases])
        with busy_processes() if busy else nullcontext():
            beside.append([timed_pass(case, device)[0] for case in cases] if busy else [])
    passes, beside = passes[1:], beside[1:]
    seconds = {case[:2]: [one[number][0] for one in passes] for number, case in enumerate(cases)}
    rows = []
    for number, (case, (_, megabytes)) in enumerate(zip(cases, passes[-1], strict=True)):
        own, textbook = seconds[case[:2]], seconds.get((case.name, "textbook"))
        typical = median(own)
        tokens = sum(int(batch.target_lengths.sum()) for batch in case.batches)  # the ends included
        real = tokens + sum(int(batch.source_lengths.sum()) for batch in case.batches)
        padded = sum(batch.source.numel() + batch.inputs.numel() for batch in case.batches)
        rows.append({
            "case": ", ".join(filter(None, case[:2])),
            "sequences_per_second": sum(len(batch.indices) for batch in case.batches) / typical,
            "tokens_per_second": tokens / typical,
            "spread": (max(own) - min(own)) / typical,
            "times_textbook": median(textbook) / typical if textbook and not case.variant else None,
            "share_of_limit": None if case.limit is None else case.limit / typical,
            "waiting_for_data": None if case.waiting is None else case.waiting / (case.waiting + typical),
            "padding": 1 - real / padded,
            "beside_busy": typical / median(one[number] for one in beside) if busy else None,
            "megabytes": megabytes,
        })  # fmt: skip
    return rows


@contextmanager
def busy_processes() -> Iterator[None]:
    """Run a process that computes without end for each core, in sessions of their own, as other users have them."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command, start_new_session=True) for _ in range(available_cores())]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def timed_pass(case: Case, device: torch.device) -> tuple[float, float | None]:
    """Return the seconds of a pass, and the megabytes that it needs on a GPU beside what it keeps, such as weights."""
    on_gpu = device.type != "cpu"
    if on_gpu:
        torch.accelerator.reset_peak_memory_stats(device)
    before, start = torch.accelerator.memory_allocated(device) if on_gpu else 0, timer()
    measured = case.run()
    seconds = timer() - start if measured is None else measured
    return seconds, (torch.accelerator.max_memory_allocated(device) - before) / 1e6 if on_gpu else None


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Compute a block or a function's calls in a precision; ``tf32`` is 32-bit with rounded multiplications."""
    rounded = precision == "tf32"
    cudnn = torch.backends.cudnn.flags(enabled=True, allow_tf32=rounded)  # by default, its recurrent layers round
    with matmul_precision("high") if rounded else nullcontext(), cudnn:
        yield


def roofline_seconds(model: Seq2Seq, batch: Batch, precision: str, device: torch.device) -> float:
    """Return how long the matrix multiplications of a training step take by themselves, padding included.

    PyTorch counts them as the model runs forward and backward, so a new attention or decoder needs no code here; what
    is added up is seconds in place of operations.

    Raises:
        NotImplementedError: If the model multiplies in another way, for example by a convolution.
    """
    rounding, aten = torch.get_float32_matmul_precision(), torch.ops.aten

    def seconds(*shapes: torch.Size, **_: object) -> float:
        return matmul_seconds(*shapes[-2:], precision, device, rounding)  # the operands are the last two arguments

    matmuls = {aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.baddbmm_}
    # On the CPU in double precision, as cuDNN and oneDNN's LSTM for single precision hide their multiplications from
    # the counter. So does PyTorch's fused attention, which also has a form that is not fused.
    model = copy.deepcopy(model).cpu().double().train()
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(matmuls, seconds))
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(batch.source, batch.source_lengths, batch.inputs, batch.features).logits.sum().backward()
    if unknown := counter.get_flop_counts()["Global"].keys() - matmuls:
        raise NotImplementedError(f"the limit of a step with {', '.join(map(str, unknown))} is not known")
    return counter.get_total_flops()


@cache
def matmul_seconds(left: torch.Size, right: torch.Size, precision: str, device: torch.device, _: str) -> float:
    """Return how long it takes to multiply matrices: the best of some times, as other load only slows it down."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    matrices = [torch.randn(shape, dtype=dtype, device=device) for shape in (left, right)]
    watch = Timer("torch.matmul(*matrices)", globals={"matrices": matrices}, num_threads=torch.get_num_threads())
    with computing(precision):
        return min(watch.blocked_autorange(min_run_time=0.005).times)
