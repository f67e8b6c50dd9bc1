"""Time training and search, compared with the textbook model and with the limit of the machine."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from seq2seq.api import find_device
from seq2seq.benchmark.cases import search_cases, training_cases
from seq2seq.benchmark.timing import peak_memory, report, timed
from seq2seq.errors import UserError
from seq2seq.runs.files import write_json
from seq2seq.schema import Count, check
from seq2seq.settings import resolve_config
from seq2seq.training.build import (
    MatmulPrecision,
    matmul_precision,
    silence_expected_warnings,
)


class BenchmarkSettings:
    """The keys of ``configs/benchmark.yaml``."""

    data: Any
    model: Any
    search: Any
    batch_sizes: list[Count]
    kinds: list[str]
    cells: list[str]
    device: str
    precisions: list[Literal["32-true", "tf32", "bf16-mixed"]]
    matmul_precision: MatmulPrecision
    trainer_overhead: bool
    textbook: bool
    processes: list[Count] | None
    rounds: Count
    batches: Count
    checkpoint: Any
    search_batch_sizes: list[Count]
    backends: list[Literal["torch", "onnx"]]
    output: str


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Time the configured cases, print tables, write them as JSON and return their content.

    Raises:
        UserError: If a setting is not allowed.
    """
    silence_expected_warnings()
    settings = resolve_config(config)
    check("", settings, BenchmarkSettings)
    rounds, count, precision = settings["rounds"], settings["batches"], settings["matmul_precision"]
    output = Path(str(settings["output"])).expanduser()
    try:  # before any time is spent
        output.parent.mkdir(parents=True, exist_ok=True)
        output.open("a").close()
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror}") from error
    device = find_device(settings["device"])
    searches = search_cases(settings, device, count) if settings["checkpoint"] is not None else []
    content: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    content["device"] = str(device) if device.type == "cpu" else torch.cuda.get_device_name(device)
    content["matmul_precision"] = precision
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with matmul_precision(precision), tempfile.TemporaryDirectory() as scratch:
        training = training_cases(settings, device, count, Path(scratch))
        for title, cases in (("training", training), ("search", searches)):
            if cases:
                seconds = timed(cases, rounds)
                memory = [peak_memory(case, device) for case in cases]
                content[title] = report(cases, seconds, memory)
                show(console, title, content[title])
    write_json(output, content)
    console.print(f"written to {output}", markup=False, soft_wrap=True)
    return content


def show(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the results."""
    table = Table(title=f"Speed of {title}, median of rounds; data: share of time spent waiting for it")
    columns = ("sequences / s", "target tokens / s", "spread", "x textbook", "share of limit", "data", "padding", "MB")
    for column in ("case", *columns):
        table.add_column(column, justify="left" if column == "case" else "right")
    formats = ("{}", "{:,.0f}", "{:,.0f}", "{:.0%}", "{:.2f}", "{:.0%}", "{:.1%}", "{:.0%}", "{:,.0f}")
    for row in rows:
        cells = zip(formats, row.values(), strict=True)
        table.add_row(*("" if value is None else form.format(value) for form, value in cells))
    console.print(table)
