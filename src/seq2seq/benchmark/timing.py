"""Timing in rounds: each round runs a pass of every case, so that other load on the machine affects all alike."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import timer  # waits for the GPU

TEXTBOOK = "textbook"
"""Variant that trains the same model with PyTorch's own layers."""


class Case(NamedTuple):
    """What is timed.

    Attributes:
        name: The settings that it times.
        run: Runs a pass over all batches. It returns the seconds that count, or None if all do.
        sequences: Number of pairs in a pass.
        tokens: Number of target tokens in a pass, the ends included.
        padding: Share of padding in the source and target tokens of a pass.
        limit: Seconds that the main work of a pass takes alone, see `roofline`; None if unknown.
        waiting: Seconds that training waits for the data of a pass, which ``run`` leaves out; None if unknown.
        variant: ``trainer``, ``textbook``, a number of processes, or empty: a bare loop, or a search.
    """

    name: str
    run: Callable[[], float | None]
    sequences: int
    tokens: int
    padding: float
    limit: float | None = None
    waiting: float | None = None
    variant: str = ""


def peak_memory(case: Case, device: torch.device) -> int | None:
    """Return how many bytes a pass needs on a GPU beside what it keeps, such as the weights; None on a CPU."""
    if device.type == "cpu":
        return None
    torch.accelerator.reset_peak_memory_stats(device)
    before = torch.accelerator.memory_allocated(device)
    case.run()
    return torch.accelerator.max_memory_allocated(device) - before


def timed(cases: Sequence[Case], rounds: int) -> list[list[float]]:
    """Return the seconds of each pass of each case, after a round of warm-up."""
    seconds: list[list[float]] = [[] for _ in cases]
    for number in range(rounds + 1):
        for case, passes in zip(cases, seconds, strict=True):
            start = timer()
            measured = case.run()
            if number > 0:
                passes.append(timer() - start if measured is None else measured)
    return seconds


def report(
    cases: Sequence[Case], seconds: Sequence[Sequence[float]], memory: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Return a row of results for each case: medians over rounds, the spread, and the memory that a pass needs."""
    medians = [statistics.median(passes) for passes in seconds]
    textbook = {case.name: median for case, median in zip(cases, medians, strict=True) if case.variant == TEXTBOOK}
    return [{
        "case": ", ".join(filter(None, (case.name, case.variant))),
        "sequences_per_second": case.sequences / median,
        "tokens_per_second": case.tokens / median,
        "spread": (max(passes) - min(passes)) / median,
        "times_textbook": textbook[case.name] / median if case.name in textbook and not case.variant else None,
        "share_of_limit": None if case.limit is None else case.limit / median,
        "waiting_for_data": None if case.waiting is None else case.waiting / (case.waiting + median),
        "padding": case.padding,
        "megabytes": None if size is None else size / 1e6,
    } for case, passes, median, size in zip(cases, seconds, medians, memory, strict=True)]  # fmt: skip
