"""How fast training and search are, and what the machine would allow, for `scripts/benchmark.py`.

Everything is timed in rounds: each round takes a pass of every case, one after another, so that what else the machine
does meets all of them alike. Medians over rounds are reported, with the spread.
"""

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from seq2seq.benchmark.cases import PLAIN, Case, search_cases, training_cases
from seq2seq.benchmark.profile import shares
from seq2seq.errors import UserError, check_choice, check_count, check_flag, check_keys
from seq2seq.reporting.tables import write_json
from seq2seq.training.build import MATMUL_PRECISIONS, keep_quiet, plain, products_in

KEYS = ["data", "model", "batch_sizes", "kinds", "cells", "precisions", "rounds", "batches", "checkpoint", "search",
        "search_batch_size", "output", "trainer_overhead", "plain", "profile", "matmul_precision"]  # fmt: skip


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Time what the config names, print the tables, write them as JSON and return their content.

    Raises:
        UserError: If a setting is not what it must be.
    """
    keep_quiet()
    settings = plain(config)
    check_keys("", settings, KEYS)
    profiled = check_flag("profile", settings["profile"])
    rounds, count = check_count("rounds", settings["rounds"]), check_count("batches", settings["batches"])
    precision = check_choice("matmul_precision", settings["matmul_precision"], MATMUL_PRECISIONS)
    output = Path(str(settings["output"])).expanduser()
    try:  # before the time is spent
        output.parent.mkdir(parents=True, exist_ok=True)
        output.open("a").close()
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror}") from error
    searching = search_cases(settings, count) if settings["checkpoint"] is not None else []
    content: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    content["matmul_precision"] = precision
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with products_in(precision), tempfile.TemporaryDirectory() as scratch:  # for what the trainer logs
        training = training_cases(settings, count, Path(scratch))
        for title, cases in (("training", training), ("search", searching)):
            if cases:
                content[title] = report(cases, timed(cases, rounds))
                show(console, title, content[title])
        if profiled:
            content["profile"] = {case.name: shares(case.run) for case in training if case.bare}
            show_profile(console, content["profile"])
    write_json(output, content)
    console.print(f"written to {output}", markup=False, soft_wrap=True)
    return content


def timed(cases: Sequence[Case], rounds: int) -> list[list[float]]:
    """Return the seconds of each pass of each case, after a pass that does not count."""
    seconds: list[list[float]] = [[] for _ in cases]
    for number in range(rounds + 1):
        for case, kept in zip(cases, seconds, strict=True):
            start = time.perf_counter()
            own = case.run()
            if number:
                kept.append(time.perf_counter() - start if own is None else own)
    return seconds


def report(cases: Sequence[Case], seconds: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Return a row of results for each case, and how many times as fast as the plain model it is, if that was timed."""
    plain = {
        case.name.removesuffix(PLAIN): statistics.median(kept)
        for case, kept in zip(cases, seconds, strict=True)
        if case.name.endswith(PLAIN)
    }
    rows = []
    for case, kept in zip(cases, seconds, strict=True):
        middle = statistics.median(kept)
        rows.append({
            "case": case.name,
            "words_per_second": case.words / middle,
            "tokens_per_second": case.tokens / middle,
            "spread": (max(kept) - min(kept)) / middle,
            "times_plain": plain[case.name] / middle if case.name in plain else None,
            "share_of_limit": case.limit / middle,
            "padding": case.padding,
        })  # fmt: skip
    return rows


def show(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the results."""
    table = Table(title=f"Speed of {title}, median of rounds")
    for column in ("case", "words / s", "target tokens / s", "spread", "x plain", "share of limit", "padding"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        times = "" if row["times_plain"] is None else f"{row['times_plain']:.2f}"
        share = "" if math.isnan(row["share_of_limit"]) else f"{row['share_of_limit']:.0%}"
        table.add_row(
            row["case"], f"{row['words_per_second']:,.0f}", f"{row['tokens_per_second']:,.0f}", f"{row['spread']:.0%}",
            times, share, f"{row['padding']:.0%}",
        )  # fmt: skip
    console.print(table)


def show_profile(console: Console, profile: dict[str, dict[str, float]]) -> None:
    """Print where the time of training steps goes."""
    table = Table(title="Where the time of a bare step goes, under the profiler")
    table.add_column("case")
    for group in next(iter(profile.values())):
        table.add_column(group, justify="right")
    for name, groups in profile.items():
        table.add_row(name, *(f"{share:.0%}" for share in groups.values()))
    console.print(table)
