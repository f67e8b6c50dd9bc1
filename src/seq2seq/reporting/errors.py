"""What a model gets wrong: the worst predictions, confused symbols, and accuracy by length and by rarest symbol."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rapidfuzz.distance import Levenshtein

from seq2seq.reporting.fonts import families, printable
from seq2seq.reporting.plots import BLUE, ORANGE, new_figure
from seq2seq.reporting.tables import Prediction, exact_match_by, texts_of, write_rows

NOTHING = "(nothing)"
"""Stands for a symbol that is missing or too many."""

RANKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Upper ends of the ranges of ranks."""

SHOWN = 15
"""Number of confusions in the picture."""


class Case(NamedTuple):
    """A prediction, and its tokens and those of the reference with the fewest edits.

    Attributes:
        length: Number of tokens of the source.
        rank: Of the source's rarest token, counted from 1 for the most frequent one; None for a token that is unknown.
    """

    prediction: Prediction
    length: int
    rank: int | None
    predicted: list[str]
    reference: list[str]

    @property
    def edits(self) -> int:
        """Number of tokens that must be inserted, deleted or replaced."""
        return Levenshtein.distance(self.predicted, self.reference)


class Bin(NamedTuple):
    """Some of the predictions.

    Attributes:
        label: What they have in common, such as ``1-10``.
        pairs: How many there are.
        exact_match: Fraction of them that is right.
    """

    label: str
    pairs: int
    exact_match: float


def confusions(cases: Iterable[Case]) -> Counter[tuple[str, str]]:
    """Count which symbol of a reference became which symbol of the prediction, with the fewest edits.

    Example:
        >>> pair = Prediction("s", "a c", ("a b c",), False, "")
        >>> confusions([Case(pair, 1, 1, ["a", "c"], ["a", "b", "c"])])
        Counter({('b', '(nothing)'): 1})
    """
    counts: Counter[tuple[str, str]] = Counter()
    for case in cases:
        for edit in Levenshtein.editops(case.reference, case.predicted):
            wanted = NOTHING if edit.tag == "insert" else case.reference[edit.src_pos]
            counts[wanted, NOTHING if edit.tag == "delete" else case.predicted[edit.dest_pos]] += 1
    return counts


def by_length(cases: Iterable[Case]) -> list[Bin]:
    """Return the exact match by length of the source, in tokens."""
    groups = exact_match_by((case.length, case.prediction.correct) for case in cases)
    return [Bin(str(length), pairs, rate) for length, pairs, rate in groups]


def by_rarest(cases: Sequence[Case]) -> list[Bin]:
    """Return the exact match by the rank of the source's rarest symbol; what is not in the vocabulary comes last."""
    labels = [f"{start + 1}-{end}" for start, end in pairwise([0, *RANKS])] + [f"above {RANKS[-1]}", "unknown"]
    numbers = [len(labels) - 1 if case.rank is None else bisect_left(RANKS, case.rank) for case in cases]
    groups = exact_match_by(zip(numbers, (case.prediction.correct for case in cases), strict=True))
    return [Bin(labels[number], pairs, rate) for number, pairs, rate in groups]


def write_errors(path: Path, cases: Iterable[Case]) -> None:
    """Write the wrong predictions as tab-separated lines, those with the most edits first."""
    wrong = sorted((case for case in cases if not case.prediction.correct), key=lambda case: -case.edits)
    rows = ((case.edits, *texts_of(case.prediction)) for case in wrong)
    write_rows(path, [("edits", "source", "prediction", "reference"), *rows])


def write_confusions(path: Path, counts: Mapping[tuple[str, str], int]) -> None:
    """Write confusions as tab-separated lines, the most frequent first."""
    rows = sorted(((count, *pair) for pair, count in counts.items()), key=lambda row: (-row[0], row[1:]))
    write_rows(path, [("count", "reference", "prediction"), *rows])


def error_picture(cases: Sequence[Case]) -> Figure:
    """Draw accuracy by length and by rarest symbol, and the most frequent confusions."""
    figure = new_figure(13, 4)
    length, rarest, confused = figure.subplots(1, 3)
    draw_bins(length, by_length(cases), "length of the source", "tokens")
    draw_bins(rarest, by_rarest(cases), "rarest symbol of the source", "rank")
    most = sorted(confusions(cases).items(), key=lambda item: (item[1], item[0]))[-SHOWN:]
    families("".join(one for pair, _ in most for one in pair))  # all at once, as each search opens the fonts
    labels = [" → ".join(one if one == NOTHING else printable(one) for one in pair) for pair, _ in most]
    confused.barh(range(len(most)), [count for _, count in most], color=ORANGE)
    confused.set_yticks(range(len(most)), labels, family=families("".join(labels)))
    confused.set(title="Confused symbols: reference → prediction", xlabel="number")
    return figure


def draw_bins(axes: Axes, bins: Sequence[Bin], by: str, unit: str) -> None:
    """Draw the exact match of some groups, with the number of pairs above each bar."""
    bars = axes.bar(range(len(bins)), [one.exact_match for one in bins], color=BLUE)
    axes.set_xticks(range(len(bins)), [one.label for one in bins], rotation=90, fontsize=7)
    axes.bar_label(bars, [str(one.pairs) for one in bins], fontsize=7, rotation=90, padding=2)
    axes.set(title=f"Exact match by {by}", xlabel=unit, ylabel="exact match, number of pairs", ylim=(0, 1.15))
