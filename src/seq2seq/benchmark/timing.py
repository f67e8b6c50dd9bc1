"""Timing in rounds: each round runs a pass of every case, so that other load on the machine affects all alike."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import timer  # waits for the GPU

from seq2seq.data import Batch
from seq2seq.training.build import matmul_precision


class Case(NamedTuple):
    """What is timed.

    Attributes:
        name: The settings that it times.
        variant: ``trainer``, ``textbook``, a number of processes, or empty: a bare loop, or a search.
        run: Runs a pass over all batches. It returns the seconds that count, or None if all do.
        batches: What a pass reads.
        precision: One of the setting ``precisions``.
        limit: Seconds that the matrix multiplications of a pass take alone, see `roofline`; None if unknown.
        waiting: Seconds that training waits for the data of a pass, which ``run`` leaves out; None if unknown.
    """

    name: str
    variant: str
    run: Callable[[], float | None]
    batches: Sequence[Batch]
    precision: str = "32-true"
    limit: float | None = None
    waiting: float | None = None


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Compute in a precision; ``tf32`` is 32-bit with rounded multiplications."""
    rounded = precision == "tf32"
    cudnn = torch.backends.cudnn.flags(enabled=True, allow_tf32=rounded)  # by default, its recurrent layers round
    with matmul_precision("high") if rounded else nullcontext(), cudnn:
        yield


def timed_pass(case: Case, device: torch.device) -> tuple[float, float | None]:
    """Return the seconds of a pass, and the megabytes that it needs on a GPU beside what it keeps, such as weights."""
    on_gpu = device.type != "cpu"
    if on_gpu:
        torch.accelerator.reset_peak_memory_stats(device)
    before, start = torch.accelerator.memory_allocated(device) if on_gpu else 0, timer()
    with computing(case.precision):
        measured = case.run()
    seconds = timer() - start if measured is None else measured
    return seconds, (torch.accelerator.max_memory_allocated(device) - before) / 1e6 if on_gpu else None


def measure(cases: Sequence[Case], rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Return a row of results for each case: medians over rounds, which follow one of warm-up, and the spread."""
    passes = [[timed_pass(case, device) for case in cases] for _ in range(rounds + 1)][1:]
    seconds = {case[:2]: [one[number][0] for one in passes] for number, case in enumerate(cases)}
    rows = []
    for case, (_, megabytes) in zip(cases, passes[-1], strict=True):
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
            "megabytes": megabytes,
        })  # fmt: skip
    return rows
