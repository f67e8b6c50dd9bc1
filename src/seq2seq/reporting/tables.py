"""Tables of metrics and predictions, on the console and in files."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table
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
        groups = exact_match_by((prediction.group, prediction.correct) for prediction in self.predictions)
        return {group: rate for group, _, rate in groups}

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics, their signatures, those by group under ``by_<group name>``, and ``part`` if not all."""
        by_group = {f"by_{self.group_name}": self.by_group()} if self.group_name else {}
        signatures = {f"{name}_signature": signature for name, signature in self.signatures.items()}
        return self.metrics | signatures | by_group | ({"part": self.part} if self.part else {})


def exact_match_by(pairs: Iterable[tuple[Any, bool]]) -> list[tuple[Any, int, float]]:
    """Group pairs by what comes first; return that, the number of pairs, and the fraction that is right, in order."""
    groups: dict[Any, list[bool]] = defaultdict(list)
    for key, correct in pairs:
        groups[key].append(correct)
    return [(key, len(own), sum(own) / len(own)) for key, own in sorted(groups.items())]


def show_metrics(console: Console, results: Mapping[str, Result]) -> None:
    """Print a row for each metric and a column for each split."""
    first = next(iter(results.values()))
    caption = Text("\n".join(f"{name}: {signature}" for name, signature in first.signatures.items()))
    headers = [f"{split}\n({result.part})" if result.part else split for split, result in results.items()]
    columns = [Column(header, justify="right") for header in headers]
    table = Table("metric", *columns, title="Metrics (rates are fractions of 1)", caption=caption)
    for name in first.metrics:
        table.add_row(name, *(f"{result.metrics[name]:.4f}" for result in results.values()))
    console.print(table)


def show_groups(console: Console, result: Result) -> None:
    """Print the groups with the lowest exact match."""
    if result.group_name is None:
        return
    worst = sorted(result.by_group().items(), key=lambda item: item[1])[:SHOWN]
    title = f"Exact match by {result.group_name}: the {len(worst)} lowest"
    table = Table(result.group_name, Column("exact_match", justify="right"), title=title)
    for group, rate in worst:
        table.add_row(Text(visible(group)), f"{rate:.4f}")
    console.print(table)


def show_predictions(console: Console, result: Result) -> None:
    """Print a few predictions, misses first."""
    columns = [Column(name, overflow="fold") for name in ("source", "prediction", "reference")]
    table = Table(*columns, title="Some of the test pairs, misses first")
    for row in sorted(result.predictions, key=lambda row: row.correct)[:SHOWN]:
        source, prediction, references = map(visible, (row.source, row.prediction, " | ".join(row.references)))
        table.add_row(Text(source), Text(prediction, style="" if row.correct else "red"), Text(references))
    console.print(table)


def texts_of(prediction: Prediction) -> list[str]:
    """Return source, prediction and references as cells of a tab-separated line; ``|`` separates references."""
    return [as_cell(one) for one in (prediction.source, prediction.prediction, " | ".join(prediction.references))]


def as_cell(text: str) -> str:
    """Return a text as a cell of a tab-separated line, which holds no tabs."""
    return text.replace("\t", " ")


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as tab-separated lines."""
    write_file(path, "".join("\t".join(map(str, row)) + "\n" for row in rows))


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as tab-separated lines under a header, in the order of the data."""
    header = ("source", "prediction", "reference", "correct", "group")
    write_rows(path, [header, *((*texts_of(one), int(one.correct), one.group) for one in predictions)])
