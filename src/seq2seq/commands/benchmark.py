"""Time training and search, compared with the textbook model and with the limit of the machine."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Column, Table

from seq2seq.api import find_device
from seq2seq.benchmark.cases import BenchmarkSettings, search_cases, training_cases
from seq2seq.benchmark.timing import measure
from seq2seq.errors import UserError
from seq2seq.runs.files import user_path, write_json
from seq2seq.settings import read_settings, resolve_config
from seq2seq.training.build import matmul_precision, silence_expected_warnings

COLUMNS = {
    "case": "{}", "sequences / s": "{:,.0f}", "target tokens / s": "{:,.0f}", "spread": "{:.0%}",
    "x textbook": "{:.2f}", "share of limit": "{:.0%}", "data": "{:.1%}", "padding": "{:.0%}", "busy": "{:.0%}",
    "MB": "{:,.0f}",
}  # fmt: skip
"""The columns of a table, in the order of a row's values, and how these are written."""


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Time the configured cases, print tables, write them as JSON and return them; raise `UserError` at a mistake."""
    silence_expected_warnings()
    settings = read_settings(BenchmarkSettings, resolve_config(config))
    output = user_path("output", settings.output)
    try:  # before any time is spent
        output.parent.mkdir(parents=True, exist_ok=True)
        output.open("a").close()
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror}") from error
    device = find_device(settings.device)
    content: dict[str, Any] = {
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
    } | settings.model_dump(include={"rounds", "matmul_precision"})  # fmt: skip
    console = Console() if sys.stdout.isatty() else Console(width=120)
    parts = {"search": search_cases(settings, device)} if settings.checkpoint is not None else {}
    with matmul_precision(settings.matmul_precision):
        for part, cases in ({"training": training_cases(settings, device)} | parts).items():
            content[part] = measure(cases, settings.rounds, device, busy=settings.busy)
            console.print(table(part, content[part]))
    write_json(output, content)
    console.print(f"written to {output}", markup=False, soft_wrap=True)
    return content


def table(part: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Return the results as a table."""
    title = f"Speed of {part}, median of rounds; data: share of time spent waiting for it; busy: speed beside others"
    table = Table(*(Column(name, justify="left" if name == "case" else "right") for name in COLUMNS), title=title)
    for row in rows:
        cells = zip(COLUMNS.values(), row.values(), strict=True)
        table.add_row(*("" if value is None else form.format(value) for form, value in cells))
    return table
