"""Plots: learning curves and attention heatmaps."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from seq2seq.decoding.output import Alignment
from seq2seq.reporting.fonts import families, printable
from seq2seq.runs.files import atomic_write

HEATMAP_LIMIT = 80
"""Maximum number of tokens on a side of a heatmap; a larger one would be unreadable and take gigabytes."""

PERCENT = 2.0
"""A metric above this goes up to 100, and is drawn on the scale of those that go up to 1."""

BLUE, ORANGE, GREY = "#1f5fa8", "#d9822b", "#666666"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches that needs neither a display nor pyplot's global state."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path, key: str = "picture") -> None:
    """Write a figure as PNG; ``key`` is the setting that named the file, for the error."""
    with atomic_write(path, key) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def curve(rows: Sequence[Mapping[str, str]], column: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of a column of Lightning's ``metrics.csv``, without empty cells."""
    filled = [row for row in rows if row.get(column)]
    return [int(row["step"]) for row in filled], [float(row[column]) for row in filled]


def learning_curves(metrics_file: Path) -> Figure:
    """Draw the loss, the metrics of free-running decoding, and the learning rate, over optimizer steps."""
    rows = list(csv.DictReader(metrics_file.read_text(encoding="utf-8").splitlines()))
    figure = new_figure(10, 3.2)
    loss, decoding, rate = figure.subplots(1, 3)
    loss.plot(*curve(rows, "train/loss"), color=GREY, linewidth=0.8, label="training")
    loss.plot(*curve(rows, "val/loss_teacher_forced"), "o-", color=BLUE, label="validation")
    loss.set(title="Loss, teacher-forced", ylabel="nats per token", yscale="log")
    for name in rows[0] if rows else ():
        if name.startswith("val/") and not name.endswith("_teacher_forced"):
            steps, values = curve(rows, name)
            scale = 100 if values and values[-1] > PERCENT else 1  # BLEU, say
            label = name.removeprefix("val/").replace("_", " ") + " / 100" * (scale == 100)
            decoding.plot(steps, [value / scale for value in values], "o-", label=label)
    decoding.set(title="Validation, free-running decoding", ylim=(-0.02, None))
    rate.plot(*curve(rows, "train/lr"), color=BLUE)
    rate.set(title="Learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (loss, decoding, rate):
        axes.set(xlabel="step", xlim=(0, None))
        axes.grid(alpha=0.3)
    loss.legend(frameon=False)
    decoding.legend(frameon=False, loc="center right")
    return figure


def attention_heatmap(alignment: Alignment) -> Figure:
    """Draw attention weights: a row for each predicted token, a column for each source token and each feature.

    A dot marks a weight of exactly 0.
    """
    rows, columns = alignment.weights.shape
    fonts = families("".join((*alignment.source, *alignment.features, *alignment.target)))
    source = [printable(token, named=True) for token in (*alignment.source, *alignment.features)]
    target = [printable(token, named=True) for token in alignment.target]
    width, height = (any("\n" in label for label in labels) for labels in (target, source))
    figure = new_figure(1.6 + 0.28 * columns + width, 1.4 + 0.28 * rows + height)
    axes = figure.subplots()
    image = axes.imshow(alignment.weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(columns), source, family=fonts)
    axes.set_yticks(range(rows), target, family=fonts)
    axes.set(xlabel="source, features" if alignment.features else "source", ylabel="prediction")
    if alignment.features:
        axes.axvline(len(alignment.source) - 0.5, color=GREY)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set_rotation(90 if len(label.get_text()) > 2 else 0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(fontsize=7 if "\n" in label.get_text() else 10, multialignment="left")
    zeros = (alignment.weights == 0).nonzero()
    axes.plot(zeros[:, 1], zeros[:, 0], ".", color=GREY, alpha=0.5, markersize=2)
    label = "attention weight" + "; a dot: exactly 0" * bool(len(zeros))
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure
