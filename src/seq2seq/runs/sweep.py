"""The summary of a sweep (``-m``): a row for each run, including failed ones."""

import csv
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from seq2seq.errors import UserError
from seq2seq.runs.console import one_line_errors
from seq2seq.runs.directory import FAILURE, METRICS, OVERRIDES
from seq2seq.runs.files import output_file, write_file


def runs(sweep_dir: Path) -> list[Path]:
    """Return the directories of a sweep's runs, in the order of their numbers."""
    found = (path.parent for path in sweep_dir.glob(f"*/{OVERRIDES}"))
    return sorted(found, key=lambda path: (len(path.name), path.name))


class Row(NamedTuple):
    """A run in the summary: a directory, overrides, results by column, and why there are none."""

    name: str
    overrides: list[str]
    numbers: Mapping[str, str]
    failure: str


def summary_row(run: Path) -> Row:
    """Read what a run left in its directory."""
    numbers, failure = {}, "did not finish"
    if (run / FAILURE).exists():  # of the last attempt, even if an earlier one with other settings finished
        failure = (run / FAILURE).read_text(encoding="utf-8").strip()
    elif (run / METRICS).exists():
        numbers, failure = numbers_of(json.loads((run / METRICS).read_text(encoding="utf-8"))), ""
    overrides: Any = OmegaConf.to_container(OmegaConf.load(run / OVERRIDES), resolve=False)
    return Row(run.name, overrides, numbers, failure)


def numbers_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a finished run: the monitored metric, and those of free-running decoding on test."""
    monitored, test = content["monitor"].removeprefix("val/"), content.get("test", {})
    columns = {f"validation {monitored}": content.get("validation", {}).get(monitored)}
    for name in dict.fromkeys([monitored, *test]):
        if name == monitored or (isinstance(test[name], float) and not name.endswith("_teacher_forced")):
            columns[f"test {name}"] = test.get(name)
    numbers = {name.replace("_", " "): "" if value is None else f"{value:.4f}" for name, value in columns.items()}
    return numbers | {"seconds": f"{content['seconds']:.0f}"}


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of all runs; seconds come last."""
    names = dict.fromkeys(name for row in rows for name in row.numbers)
    return sorted(names, key=lambda name: name == "seconds")


def show_summary(console: Console, rows: Sequence[Row]) -> None:
    """Print a row for each run with the overrides that not all runs share, and below it why runs failed."""
    shared = set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()
    columns = columns_of(rows) or ["result"]
    header = (Column(name, overflow="fold") for name in ("run", "overrides", *columns))
    table = Table(*header, title="Summary", caption=Text(" ".join(sorted(shared))))
    for row in rows:
        own = " ".join(override for override in row.overrides if override not in shared)
        numbers = [row.numbers.get(column, "") for column in columns] if row.numbers else ["failed"]
        table.add_row(*map(Text, (row.name, own, *numbers)), style="red" if row.failure else "")
    console.print(table)
    for row in rows:
        if row.failure:
            console.print(Text(f"run {row.name} failed: {row.failure}", style="red"), soft_wrap=True)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the summary as CSV, a line for each run."""
    columns = columns_of(rows)
    lines = [["run", "overrides", *columns, "failure"]]
    for row in rows:
        numbers = [row.numbers.get(column, "") for column in columns]
        lines.append([row.name, " ".join(row.overrides), *numbers, row.failure])
    with output_file(path, "file") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom; for more, the last is a little too wide."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % interval by Student's t, NaN for a single value."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), T_95[min(len(values) - 1, len(T_95)) - 1] * deviation / math.sqrt(len(values))


def format_interval(values: Sequence[float], digits: int) -> str:
    """Return mean and interval as text; empty without values.

    Example:
        >>> format_interval([1.0, 2.0, 3.0], digits=2), format_interval([0.5], digits=1)
        ('2.00 ± 2.48', '0.5')
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
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in finished:
        groups[tuple(one for one in row.overrides if not one.startswith("seed="))].append(row)
    shared = set.intersection(*map(set, groups)) if len(groups) > 1 else set()
    columns = columns_of(finished)
    lines = [["overrides", "runs", *columns], ["---", *["---:"] * (len(columns) + 1)]]
    means: dict[str, list[float]] = defaultdict(list)
    for overrides, own in groups.items():
        lines.append([f"`{' '.join(one for one in overrides if one not in shared)}`", str(len(own))])
        for column in columns:
            values = [float(row.numbers[column]) for row in own if row.numbers.get(column)]
            lines[-1].append(format_interval(values, digits=4))
            means[column] += [statistics.fmean(values)] if values else []
    if len(groups) > 1:
        overall = [f"{statistics.fmean(means[column]):.4f}" if means[column] else "" for column in columns]
        lines.append(["mean of the lines above", str(len(finished)), *overall])
    text = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]
    text += ["", f"All runs: `{' '.join(sorted(shared))}`"] if shared else []
    text += ["", f"{len(rows) - len(finished)} of {len(rows)} runs failed"] if len(finished) < len(rows) else []
    write_file(path, "\n".join(text) + "\n")


class WritableDirectory(Callback):
    """Ends a command with one line if the directory for its results cannot be made."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the directory of a single run."""
        with one_line_errors():  # Hydra only logs what a callback raises, unless it ends the program
            make_directory("hydra.run.dir", Path(config.hydra.run.dir))


def make_directory(key: str, path: Path) -> None:
    """Make a directory, in which files can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(f"{key}={path} cannot be written: {error.strerror}") from error


class SweepSummary(WritableDirectory):
    """Prints the summary of a sweep, writes ``summary.csv`` and ``summary.md``, and exits with 1 if a run failed.

    It reads the runs' directories, so it does not matter which launcher ran them, or where.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a directory that already holds a sweep, unless this one continues it."""
        sweep_dir = Path(config.hydra.sweep.dir)
        self.start = time.time() - 1  # file systems round times
        with one_line_errors():
            make_directory("hydra.sweep.dir", sweep_dir)
            if runs(sweep_dir) and config.get("resume") != "auto":
                instead = "choose another directory, or resume=auto to continue them"
                raise UserError(f"hydra.sweep.dir={sweep_dir} already holds runs; {instead}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the runs."""
        sweep_dir = Path(config.hydra.sweep.dir)
        rows = [summary_row(run) for run in runs(sweep_dir)]
        show_summary(Console(), rows)
        write_csv(sweep_dir / "summary.csv", rows)
        write_markdown(sweep_dir / "summary.md", rows)
        failures = sweep_dir.glob(f"*/{FAILURE}")
        if any(path.stat().st_mtime >= self.start for path in failures):  # earlier ones are shown, but do not count
            raise SystemExit(1)
