"""Tables of metrics and predictions, on the console and in files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.errors import visible
from seq2seq.runs.files import write_file

SHOWN = 8
"""Number of predictions, and of groups, that are printed."""


class Prediction(NamedTuple):
    """A decoded pair.

    Attributes:
        source: Text; tabs separate its columns if there are several.
        prediction: Text.
        references: Texts that count as right.
        correct: Whether the tokens of the prediction are those of a reference.
        group: Group of the pair; empty if the data have none.
    """

    source: str
    prediction: str
    references: tuple[str, ...]
    correct: bool
    group: str


class Result(NamedTuple):
    """The results of a model on a split.

    Attributes:
        metrics: Values by name, as in ``configs/metrics``.
        predictions: In the order of the data.
        group_name: What groups stand for, such as ``locale``; None if there are none.
        part: How much of the split was used, such as ``4 of 32 batches``; empty if all.
        signatures: How metrics with several common definitions were computed, by name.
    """

    metrics: dict[str, float]
    predictions: list[Prediction]
    group_name: str | None
    part: str = ""
    signatures: Mapping[str, str] = {}

    def by_group(self) -> dict[str, float]:
        """Return the exact match of each group."""
        groups: dict[str, list[bool]] = defaultdict(list)
        for prediction in self.predictions:
            groups[prediction.group].append(prediction.correct)
        return {group: sum(correct) / len(correct) for group, correct in sorted(groups.items())}

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics, their signatures, those by group under ``by_<group name>``, and ``part`` if not all."""
        by_group = {f"by_{self.group_name}": self.by_group()} if self.group_name else {}
        signatures = {f"{name}_signature": signature for name, signature in self.signatures.items()}
        return self.metrics | signatures | by_group | ({"part": self.part} if self.part else {})

    def misses_first(self) -> list[Prediction]:
        """Return the predictions, wrong ones first."""
        return sorted(self.predictions, key=lambda prediction: prediction.correct)


def show_metrics(console: Console, results: Mapping[str, Result]) -> None:
    """Print a row for each metric and a column for each split."""
    signatures = dict(next(iter(results.values())).signatures)
    caption = "\n".join(f"{name}: {signature}" for name, signature in signatures.items())
    table = Table(title="Metrics (rates are fractions of 1)", caption=Text(caption) if caption else None)
    table.add_column("metric")
    for split, result in results.items():
        table.add_column(f"{split}\n({result.part})" if result.part else split, justify="right")
    for name in next(iter(results.values())).metrics:
        table.add_row(name, *(f"{result.metrics[name]:.4f}" for result in results.values()))
    console.print(table)


def show_groups(console: Console, result: Result) -> None:
    """Print the groups with the lowest exact match."""
    if result.group_name is None:
        return
    worst = sorted(result.by_group().items(), key=lambda item: item[1])[:SHOWN]
    table = Table(title=f"Exact match by {result.group_name}: the {len(worst)} lowest")
    table.add_column(result.group_name)
    table.add_column("exact_match", justify="right")
    for group, rate in worst:
        table.add_row(Text(visible(group)), f"{rate:.4f}")
    console.print(table)


def show_predictions(console: Console, result: Result) -> None:
    """Print a few predictions, misses first."""
    table = Table(title="Some of the test pairs, misses first")
    for column in ("source", "prediction", "reference"):
        table.add_column(column, overflow="fold")
    for row in result.misses_first()[:SHOWN]:
        style = "" if row.correct else "red"
        source, prediction, references = map(visible, (row.source, row.prediction, " | ".join(row.references)))
        table.add_row(Text(source), Text(prediction, style=style), Text(references))
    console.print(table)


PREDICTION_COLUMNS = ("source", "prediction", "reference", "correct", "group")


def texts_of(prediction: Prediction) -> tuple[str, str, str]:
    """Return source, prediction and references as cells of a tab-separated line; ``|`` separates references."""
    cells = prediction.source, prediction.prediction, " | ".join(prediction.references)
    return tuple(cell.replace("\t", " ") for cell in cells)  # pyright: ignore[reportReturnType]


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as tab-separated lines under a header, in the order of the data."""
    rows = [PREDICTION_COLUMNS, *((*texts_of(p), str(int(p.correct)), p.group) for p in predictions)]
    write_file(path, lambda file: file.writelines("\t".join(row) + "\n" for row in rows))
