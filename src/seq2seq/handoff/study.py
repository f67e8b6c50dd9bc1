"""The report of the handoff study: accuracy with each bridge and each mistake, with and without attention."""

import csv
import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console
from rich.markdown import Markdown

from seq2seq.handoff.mistakes import MISTAKES, RIGHT
from seq2seq.nn.bridge import BRIDGES
from seq2seq.reporting.plots import BLUE, GREY, ORANGE, new_figure, save
from seq2seq.runs.directory import CONFIG, METRICS
from seq2seq.runs.files import write_file
from seq2seq.runs.sweep import SweepSummary, format_interval, interval, runs

VARIANTS = [*BRIDGES, *MISTAKES]
"""Order of the table: bridges, then mistakes with the linear bridge; all others come last."""


class Run(NamedTuple):
    """A finished run of a study.

    Attributes:
        group: Data and cell.
        variant: The bridge, or the mistake.
        attention: Name of the attention.
        seed: Seed of the run.
        score: The monitored metric on the test set, in %.
        early: The same on the validation set after one of the first epochs, which shows who learns sooner.
    """

    group: str
    variant: str
    attention: str
    seed: int
    score: float
    early: float


def read_run(directory: Path, epoch: int = 1) -> Run | None:
    """Read what a run left in its directory; None if it did not finish.

    Args:
        directory: The run's directory.
        epoch: The epoch of `Run.early`, counted from 1.
    """
    if not (directory / METRICS).exists():
        return None
    settings = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    results = json.loads((directory / METRICS).read_text(encoding="utf-8"))
    model, data = settings["model"], settings["data"]
    cells = dict.fromkeys((model["encoder"]["cell"], model["decoder"]["cell"]))
    task = settings["dataset"] or data["task"]
    variant = model["bridge"]
    if settings["handoff"] != RIGHT:
        variant = settings["handoff"] + ("" if variant == "linear" else f" through {variant}")
    return Run(
        f"{task}, {' to '.join(cells).upper()}",
        variant,
        model["attention"],
        settings["seed"],
        100 * results["test"][settings["monitor"].removeprefix("val/")],
        100 * value_of_epoch(directory / "metrics.csv", settings["monitor"], epoch),
    )


def value_of_epoch(metrics_file: Path, name: str, epoch: int) -> float:
    """Return a metric of validation after an epoch, counted from 1; NaN if it was not logged."""
    if not metrics_file.exists():
        return math.nan
    with metrics_file.open(encoding="utf-8", newline="") as file:
        values = (float(row[name]) for row in csv.DictReader(file) if row.get(name))
        return next(islice(values, epoch - 1, None), math.nan)


def columns(group: Sequence[Run], epoch: int = 1) -> list[tuple[str, str, str]]:
    """Return the columns of a group: a title, an attention and a field of `Run`; ``epoch`` is that of `Run.early`."""
    attentions = sorted({run.attention for run in group}, key=lambda word: (word == "none", word))
    titles = {word: "no attention" if word == "none" else f"{word} attention" for word in attentions}
    return [(titles[word], word, "score") for word in attentions] + [
        (f"{titles[word]}, epoch {epoch}", word, "early") for word in attentions
    ]


def values_of(group: Sequence[Run], variant: str, attention: str, field: str) -> list[float]:
    """Return a field of the runs of a variant."""
    return [getattr(run, field) for run in group if (run.variant, run.attention) == (variant, attention)]


def group_runs(found: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by group, in the order of the groups' names."""
    return {name: [run for run in found if run.group == name] for name in sorted({run.group for run in found})}


def variants_of(group: Sequence[Run]) -> list[str]:
    """Return the variants of a group, in the order of the table."""
    found = {run.variant for run in group}
    return [variant for variant in VARIANTS if variant in found] + sorted(found - set(VARIANTS))


def markdown(found: Sequence[Run], epoch: int = 1) -> str:
    """Return a table for each group: the mean of the monitored metric in %, with its 95 % interval over seeds.

    Args:
        found: The runs.
        epoch: The epoch of `Run.early`.
    """
    lines = []
    for name, group in group_runs(found).items():
        fields = columns(group, epoch)
        lines += [f"**{name}**", "", "| handed over | seeds |" + "".join(f" {title} |" for title, *_ in fields)]
        lines.append("|---|---|" + "---|" * len(fields))
        for variant in variants_of(group):
            cells = [values_of(group, variant, attention, field) for _, attention, field in fields]
            seeds = {run.seed for run in group if run.variant == variant}
            lines.append(
                f"| {variant} | {len(seeds)} | {' | '.join(format_interval(values, digits=1) for values in cells)} |"
            )
        lines.append("")
    return "\n".join(lines)


def picture(found: Sequence[Run]) -> Figure:
    """Draw each run as a dot and each mean with its interval, in a panel for each group and attention."""
    groups = group_runs(found)
    fields = {name: [field for field in columns(group) if field[2] == "score"] for name, group in groups.items()}
    heights = [len(variants_of(group)) + 1.5 for group in groups.values()]
    figure = new_figure(9, 0.3 * sum(heights))
    panels = figure.subplots(
        len(groups), max(map(len, fields.values())), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for row, (name, group) in zip(panels, groups.items(), strict=True):
        variants = variants_of(group)
        for axes in row[len(fields[name]) :]:
            axes.axis("off")
        for axes, (title, attention, field) in zip(row, fields[name], strict=False):
            for place, variant in enumerate(variants):
                values = values_of(group, variant, attention, field)
                if not values:
                    continue
                mean, half = interval(values)
                colour = ORANGE if variant.split()[0] in MISTAKES else BLUE
                axes.plot(values, [place] * len(values), ".", color=GREY, alpha=0.6, markersize=5)
                axes.errorbar(mean, place, xerr=half, fmt="o", color=colour, markersize=5, capsize=3)
            axes.set_yticks(range(len(variants)), variants if axes is row[0] else [])
            axes.set(title=f"{name}, {title}", xlim=(-2, 102), ylim=(len(variants) - 0.5, -0.5))
            axes.title.set_fontsize(10)
            axes.grid(axis="x", alpha=0.3)
        row[0].set_xlabel("monitored metric on test, in %; dots are seeds, bars 95 % intervals", fontsize=8)
    return figure


class StudyReport(SweepSummary):
    """Ends a sweep with a table and a picture over seeds, ``table.md`` and ``study.png``.

    Args:
        epoch: The table also has the results of this epoch, counted from 1, on the validation set.
    """

    def __init__(self, epoch: int = 1) -> None:
        super().__init__()
        self.epoch = epoch

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on all finished runs in the directory, including those of earlier sweeps."""
        sweep_dir = Path(config.hydra.sweep.dir)
        found = [run for directory in runs(sweep_dir) if (run := read_run(directory, self.epoch))]
        try:
            if found:
                text = markdown(found, self.epoch)
                write_file(sweep_dir / "table.md", lambda file: file.write(text))
                save(picture(found), sweep_dir / "study.png")
                Console().print(Markdown(text))
        finally:
            super().on_multirun_end(config, **kwargs)
