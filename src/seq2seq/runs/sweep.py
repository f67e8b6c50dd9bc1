"""The summary of a sweep (``-m``): a row for each run, including failed ones."""

import csv
import errno
import json
import math
import os
import statistics
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

from seq2seq.errors import visible
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


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the summary as CSV, a line for each run."""
    columns = columns_of(rows)
    cells = [[row.numbers.get(column, "") for column in columns] for row in rows]
    lines = [["run", "overrides", *columns, "failure"]]
    lines += [[row.name, " ".join(row.overrides), *own, row.failure] for row, own in zip(rows, cells, strict=True)]
    write_file(path, lambda file: csv.writer(file, lineterminator="\n").writerows(lines))


T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom; for more, the last is a little too wide."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % interval by Student's t, NaN for a single value.

    Example:
        >>> mean, half = interval([1.0, 2.0, 3.0])
        >>> mean, round(half, 2)
        (2.0, 2.48)
    """
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, math.nan
    return mean, T_95[min(len(values) - 1, len(T_95)) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def format_interval(values: Sequence[float], digits: int) -> str:
    """Return mean and interval as text; empty without values.

    Example:
        >>> format_interval([0.1, 0.2, 0.3], digits=4), format_interval([0.5], digits=1)
        ('0.2000 ± 0.2484', '0.5')
    """
    if not values:
        return ""
    mean, half = interval(values)
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def write_markdown(path: Path, rows: Sequence[Row]) -> None:
    """Write a Markdown table with a line for all runs that differ in nothing but the seed: means and 95 % intervals.

    With several lines, the last one has the means of the others, such as over files.
    """
    finished = [row for row in rows if row.numbers]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in finished:
        groups.setdefault(tuple(one for one in row.overrides if not one.startswith("seed=")), []).append(row)
    shared = set.intersection(*map(set, groups)) if len(groups) > 1 else set()
    columns = columns_of(finished)
    lines = [["overrides", "runs", *columns], ["---", *["---:"] * (len(columns) + 1)]]
    values: dict[str, list[float]] = {column: [] for column in columns}
    for overrides, own in groups.items():
        cells = []
        for column in columns:
            found = [float(row.numbers[column]) for row in own if row.numbers.get(column)]
            cells.append(format_interval(found, digits=4))
            values[column] += [statistics.fmean(found)] if found else []
        lines.append([f"`{' '.join(one for one in overrides if one not in shared)}`", str(len(own)), *cells])
    if len(groups) > 1:
        means = [f"{statistics.fmean(values[column]):.4f}" if values[column] else "" for column in columns]
        lines.append(["mean of the lines above", str(len(finished)), *means])
    text = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]
    note = ["", f"All runs: `{' '.join(sorted(shared))}`"] if shared else []
    failed = ["", f"{len(rows) - len(finished)} of {len(rows)} runs failed"] if len(finished) < len(rows) else []
    write_file(path, lambda file: file.writelines(line + "\n" for line in [*text, *note, *failed]))


class WritableDirectory(Callback):
    """Ends a command with one line if the directory for its results cannot be made."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the directory of a single run."""
        make_directory("hydra.run.dir", Path(config.hydra.run.dir))


def make_directory(key: str, path: Path) -> None:
    """Make a directory, or end the program with the key that names it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        print(visible(f"error: {key}={path} cannot be written: {error.strerror}"), file=sys.stderr)
        raise SystemExit(1) from None


class SweepSummary(WritableDirectory):
    """Prints the summary table at the end of a sweep, and exits with 1 if a run failed.

    It is kept as ``summary.csv``, a line for each run, and ``summary.md``, with means over seeds and their intervals.

    It reads the runs' directories, so it does not matter which launcher ran them, or where.
    """

    def __init__(self) -> None:
        self.start = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a directory that already holds a sweep, unless this one continues it."""
        sweep_dir = Path(config.hydra.sweep.dir)
        make_directory("hydra.sweep.dir", sweep_dir)
        self.start = time.time() - 1  # file systems round times
        if runs(sweep_dir) and config.get("resume") != "auto":
            print(
                visible(
                    f"error: hydra.sweep.dir={sweep_dir} already holds runs; choose another directory, or "
                    "resume=auto to continue them"
                ),
                file=sys.stderr,
            )
            raise SystemExit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the runs."""
        sweep_dir = Path(config.hydra.sweep.dir)
        rows = [summary_row(run) for run in runs(sweep_dir)]
        show_summary(Console(), rows)
        write_csv(sweep_dir / "summary.csv", rows)
        write_markdown(sweep_dir / "summary.md", rows)
        if any(row.failed_at >= self.start for row in rows):  # failures of earlier sweeps are shown, but do not count
            raise SystemExit(1)
