"""The summary of a sweep (``-m``): a row for each run, failed ones included."""

import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.console import FAILURE
from seq2seq.files import write_file

COLUMNS = ("validation exact match", "test exact match", "test symbol error rate", "seconds")


def runs(sweep_dir: Path) -> list[Path]:
    """Return the directories of a sweep's runs, in the order of their numbers."""
    found = [path.parent for path in sweep_dir.glob("*/overrides.yaml")]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def summary_row(run: Path) -> tuple[list[str], bool]:
    """Return a run's name, overrides and results or error, and whether it succeeded."""
    overrides = " ".join(OmegaConf.to_object(OmegaConf.load(run / "overrides.yaml")))  # pyright: ignore[reportArgumentType, reportCallIssue]
    if not (run / "metrics.json").exists():
        failure = run / FAILURE
        reason = failure.read_text(encoding="utf-8").strip() if failure.exists() else "did not finish"
        return [run.name, overrides, f"failed: {reason}", "", "", ""], False
    content = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    validation, test = content["validation"], content["test"]
    numbers = (validation["exact_match"], test["exact_match"], test["symbol_error_rate"])
    return [run.name, overrides, *(f"{number:.4f}" for number in numbers), f"{content['seconds']:.0f}"], True


class SweepSummary(Callback):
    """Prints the summary table at the end of a sweep, keeps it as ``summary.tsv``, and exits with 1 if a run failed.

    It reads the runs' directories, so it does not matter which launcher ran them, or where.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Hydra's signature
        """Refuse a directory that already holds a sweep."""
        sweep_dir = Path(config.hydra.sweep.dir)
        if runs(sweep_dir):
            print(f"error: hydra.sweep.dir={sweep_dir} already holds runs; choose another directory", file=sys.stderr)
            raise SystemExit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Hydra's signature
        """Show the runs."""
        sweep_dir = Path(config.hydra.sweep.dir)
        found = [summary_row(run) for run in runs(sweep_dir)]
        table = Table(title="Summary")
        for column in ("run", "overrides", *COLUMNS):
            table.add_column(column, overflow="fold")
        for row, succeeded in found:
            table.add_row(*(Text(cell, style="" if succeeded else "red") for cell in row))
        Console().print(table)
        lines = ["\t".join(("run", "overrides", *COLUMNS)), *("\t".join(row) for row, _ in found)]
        write_file(sweep_dir / "summary.tsv", lambda file: file.writelines(line + "\n" for line in lines))
        if not all(succeeded for _, succeeded in found):
            raise SystemExit(1)
