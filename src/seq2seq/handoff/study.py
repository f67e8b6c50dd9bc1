"""The report of the handoff study: accuracy with each bridge and each mistake, with and without attention."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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
    """Read what a run left in its directory; None if it did not finish. `Run.early` is of ``epoch``, counted from 1."""
    if not (directory / METRICS).exists():
        return None
    settings = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    results = json.loads((directory / METRICS).read_text(encoding="utf-8"))
    model, variant, monitor = settings["model"], settings["model"]["bridge"], settings["monitor"]
    cells = dict.fromkeys((model["encoder"]["cell"], model["decoder"]["cell"]))
    group = f"{settings['dataset'] or settings['data']['task']}, {' to '.join(cells).upper()}"
    if settings["handoff"] != RIGHT:
        variant = settings["handoff"] + ("" if variant == "linear" else f" through {variant}")
    score, early = results["test"][monitor.removeprefix("val/")], math.nan
    if (directory / "metrics.csv").exists():
        with (directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
            values = (float(row[monitor]) for row in csv.DictReader(file) if row.get(monitor))
            early = next(islice(values, epoch - 1, None), math.nan)
    return Run(group, variant, model["attention"], settings["seed"], 100 * score, 100 * early)


def panels_of(found: Sequence[Run]) -> dict[str, dict[str, dict[str, list[Run]]]]:
    """Return the runs by group, attention (as a title, none comes last) and variant (in the order of the table)."""
    panels: dict[str, dict[str, dict[str, list[Run]]]] = {}
    for name in sorted({run.group for run in found}):
        group = [run for run in found if run.group == name]
        own = {run.variant for run in group}
        variants = [variant for variant in VARIANTS if variant in own] + sorted(own - set(VARIANTS))
        panels[name] = {}
        for attention in sorted({run.attention for run in group}, key=lambda word: (word == "none", word)):
            title = "no attention" if attention == "none" else f"{attention} attention"
            runs_of = {variant: [run for run in group if run[1:3] == (variant, attention)] for variant in variants}
            panels[name][title] = runs_of
    return panels


def markdown(found: Sequence[Run], epoch: int = 1) -> str:
    """Return a table for each group: the mean of the monitored metric in %, with its 95 % interval over seeds.

    Args:
        found: The runs.
        epoch: The epoch of `Run.early`.
    """
    lines = []
    for name, panels in panels_of(found).items():
        titles = [*panels, *(f"{title}, epoch {epoch}" for title in panels)]
        lines += [
            f"**{name}**",
            "",
            f"| handed over | seeds | {' | '.join(titles)} |",
            "|---|---|" + "---|" * len(titles),
        ]
        for variant in next(iter(panels.values())):
            runs_of = [panel[variant] for panel in panels.values()]
            values = [[getattr(run, field) for run in some] for field in ("score", "early") for some in runs_of]
            seeds = {run.seed for some in runs_of for run in some}
            cells = [variant, str(len(seeds)), *(format_interval(one, digits=1) for one in values)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def picture(found: Sequence[Run]) -> Figure:
    """Draw each run as a dot and each mean with its interval, in a panel for each group and attention."""
    groups = panels_of(found)
    heights = [len(next(iter(panels.values()))) + 1.5 for panels in groups.values()]
    figure = new_figure(9, 0.3 * sum(heights) + 0.4)
    columns = max(map(len, groups.values()))
    grid = figure.subplots(len(groups), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (name, panels) in zip(grid, groups.items(), strict=True):
        for axes in row[len(panels) :]:
            axes.axis("off")
        for axes, (title, variants) in zip(row, panels.items(), strict=False):
            draw_panel(axes, variants)
            axes.set_yticks(range(len(variants)), variants if axes is row[0] else [])
            axes.set(title=f"{name}, {title}", ylim=(len(variants) - 0.5, -0.5))
            axes.title.set_fontsize(10)
            axes.grid(axis="x", alpha=0.3)
        row[0].set_xlabel("monitored metric on test, in %; scales differ", fontsize=8)
    seed = Line2D([], [], linestyle="", marker=".", color=GREY, label="a seed")
    means = [
        Line2D([], [], marker="o", color=colour, label=f"{kind}: mean and its 95 % interval, within 0 to 100 %")
        for kind, colour in (("bridge", BLUE), ("mistake", ORANGE))
    ]
    figure.legend(handles=[seed, *means], loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def draw_panel(axes: Axes, variants: Mapping[str, Sequence[Run]]) -> None:
    """Draw the runs of each variant in a row, on a scale that fits them; intervals end at 0 and 100."""
    ends = []
    for place, (variant, some) in enumerate(variants.items()):
        if not some:
            continue
        values = [run.score for run in some]
        mean, half = interval(values)
        low, high = max(mean - half, min(0, *values)), min(mean + half, max(100, *values))
        colour = ORANGE if variant.split()[0] in MISTAKES else BLUE
        axes.plot(values, [place] * len(values), ".", color=GREY, alpha=0.6, markersize=5, zorder=3)
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=colour, markersize=5, capsize=3)
        ends += [*values, low, high] if len(values) > 1 else values
    low = max(0, min(*ends, max(ends) - 2))  # at least two points wide
    high = max(*ends, low + 2)
    axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))


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
                write_file(sweep_dir / "table.md", text)
                save(picture(found), sweep_dir / "study.png")
                Console().print(Markdown(text))
        finally:
            super().on_multirun_end(config, **kwargs)
