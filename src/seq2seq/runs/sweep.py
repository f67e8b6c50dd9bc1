"""The summary of a sweep (``-m``): a row for each run, including failed ones."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.runs.directory import FAILURE, METRICS, OVERRIDES
from seq2seq.runs.files import write_file


def runs(sweep_dir: Path) -> list[Path]:
    """Return the directories of a sweep's runs, in the order of their numbers."""
    found = [path.parent for path in sweep_dir.glob(f"*/{OVERRIDES}")]
    return sorted(found, key=lambda path: (len(path.name), path.name))


class Row(NamedTuple):
    """A run in the summary.

    Attributes:
        name: Name of its directory.
        overrides: Overrides of its command line.
        numbers: Its results by column; empty if it failed.
        failure: Why it failed; empty if it did not.
        failed_at: When it failed, in seconds since 1970; 0 if it did not, or if that is unknown.
    """

    name: str
    overrides: list[str]
    numbers: dict[str, str]
    failure: str
    failed_at: float = 0.0


def summary_row(run: Path) -> Row:
    """Read what a run left in its directory."""
    overrides = [str(override) for override in OmegaConf.load(run / OVERRIDES)]
    failure = run / FAILURE  # of the last attempt, even if an earlier one with other settings finished
    if failure.exists():
        return Row(run.name, overrides, {}, failure.read_text(encoding="utf-8").strip(), failure.stat().st_mtime)
    if not (run / METRICS).exists():
        return Row(run.name, overrides, {}, "did not finish")
    return Row(run.name, overrides, numbers_of(json.loads((run / METRICS).read_text(encoding="utf-8"))), "")


def numbers_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a finished run: the monitored metric, and those of free-running decoding on test."""
    monitored, test = content["monitor"].removeprefix("val/"), content.get("test", {})
    columns = {f"validation {monitored}": content.get("validation", {}).get(monitored)}
    for name in dict.fromkeys([monitored, *test]):
        if name == monitored or (isinstance(test[name], float) and not name.endswith("_teacher_forced")):
            columns[f"test {name}"] = test.get(name)
    numbers = {name: "" if value is None else f"{value:.4f}" for name, value in columns.items()}
    return {name.replace("_", " "): text for name, text in numbers.items()} | {"seconds": f"{content['seconds']:.0f}"}


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of all runs; seconds come last."""
    names = dict.fromkeys(name for row in rows for name in row.numbers)
    return sorted(names, key=lambda name: name == "seconds")


def show_summary(console: Console, rows: Sequence[Row]) -> None:
    """Print a row for each run with the overrides that not all runs share, and below it why runs failed."""
    shared = set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()
    table = Table(title="Summary", caption=Text(" ".join(sorted(shared))))
    columns = columns_of(rows) or ["result"]
    for column in ("run", "overrides", *columns):
        table.add_column(column, overflow="fold")
    for row in rows:
        own = " ".join(override for override in row.overrides if override not in shared)
        numbers = [row.numbers.get(column, "") for column in columns] if row.numbers else ["failed"]
        table.add_row(*(Text(cell, style="red" if row.failure else "") for cell in (row.name, own, *numbers)))
    console.print(table)
    for row in rows:
        if row.failure:
            console.print(Text(f"run {row.name} failed: {row.failure}", style="red"), soft_wrap=True)


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """Write the summary as tab-separated lines."""
    columns = columns_of(rows)
    lines = ["\t".join(("run", "overrides", *columns, "failure"))]
    for row in rows:
        numbers = (row.numbers.get(column, "") for column in columns)
        lines.append("\t".join((row.name, " ".join(row.overrides), *numbers, row.failure)))
    write_file(path, lambda file: file.writelines(line + "\n" for line in lines))


class SweepSummary(Callback):
    """Prints the summary table at the end of a sweep, keeps it as ``summary.tsv``, and exits with 1 if a run failed.

    It reads the runs' directories, so it does not matter which launcher ran them, or where.
    """

    def __init__(self) -> None:
        self.start = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a directory that already holds a sweep, unless this one continues it."""
        sweep_dir = Path(config.hydra.sweep.dir)
        self.start = time.time() - 1  # file systems round times
        if runs(sweep_dir) and config.get("skip_finished") is not True:
            print(
                f"error: hydra.sweep.dir={sweep_dir} already holds runs; choose another directory, or "
                "skip_finished=true to continue them",
                file=sys.stderr,
            )
            raise SystemExit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the runs."""
        sweep_dir = Path(config.hydra.sweep.dir)
        rows = [summary_row(run) for run in runs(sweep_dir)]
        show_summary(Console(), rows)
        write_summary(sweep_dir / "summary.tsv", rows)
        if any(row.failed_at >= self.start for row in rows):  # failures of earlier sweeps are shown, but do not count
            raise SystemExit(1)
