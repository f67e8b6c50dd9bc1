"""The end of a sweep over different models: what they elect, against what each predicts."""

import shutil
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.markdown import Markdown

from seq2seq.commands.evaluate import evaluate
from seq2seq.errors import UserError
from seq2seq.runs.console import one_line_errors
from seq2seq.runs.directory import CONFIG
from seq2seq.runs.files import write_file
from seq2seq.runs.sweep import Row, SweepSummary, runs, summary_row


class VoteSummary(SweepSummary):
    """Ends a sweep over ``member`` with a vote of the runs that differ in nothing else: ``vote.md`` and ``vote/``."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 - Hydra's
        """Let the finished runs of the directory vote, including those of earlier sweeps."""
        sweep_dir = Path(config.hydra.sweep.dir)
        electorates: dict[tuple[str, ...], list[Row]] = defaultdict(list)
        for row in map(summary_row, runs(sweep_dir)):
            if row.numbers:
                electorates[tuple(one for one in row.overrides if not one.startswith("member="))].append(row)
        lines = ["| overrides | members | one, mean (lowest to highest) | vote |", "|---|---:|---:|---:|"]
        try:
            with one_line_errors():
                lines += [line_of(sweep_dir, number, *one) for number, one in enumerate(electorates.items())]
            if electorates:
                write_file(sweep_dir / "vote.md", "\n".join(lines) + "\n")
                Console().print(Markdown("\n".join(lines)))
        finally:
            super().on_multirun_end(config, **kwargs)


def line_of(sweep_dir: Path, number: int, overrides: tuple[str, ...], members: list[Row]) -> str:
    """Evaluate a vote with the settings of its first member, and return its line of the table: the monitored metric."""
    directories = [sweep_dir / member.name for member in members]
    trained: Any = OmegaConf.load(directories[0] / CONFIG)
    config = compose("evaluate", ["vote=true"])
    with open_dict(config):
        config.checkpoint = [str((one / "best.ckpt").absolute()) for one in directories]
        config.metrics, config.search, config.trainer = trained.metrics, trained.search, trained.trainer
    output_dir = sweep_dir / "vote" / str(number)
    shutil.rmtree(output_dir, ignore_errors=True)  # of an earlier sweep, with other members
    name = trained.monitor.removeprefix("val/")
    voted = evaluate(config, output_dir)["test"].get(name)
    if voted is None:
        raise UserError(f"monitor={trained.monitor} is not measured of a vote; monitor a metric of what is decoded")
    single = [float(member.numbers[f"test {name.replace('_', ' ')}"]) for member in members]
    spread = f"{fmean(single):.4f} ({min(single):.4f} to {max(single):.4f})"
    return f"| `{' '.join(overrides)}` | {len(members)} | {spread} | {voted:.4f} |"
