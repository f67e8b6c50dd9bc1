"""Continuing a run: where it begins, its directory and lock, and which logged rows are kept."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import yaml
from pytorch_lightning.loggers import CSVLogger, Logger

from seq2seq.checkpoint import HYPERPARAMETERS, read_checkpoint
from seq2seq.errors import UserError
from seq2seq.resuming.lightning import SECTIONS, check_version, position
from seq2seq.runs.directory import CONFIG, FAILURE, METRICS, OVERRIDES, PREDICTIONS, RUN_FILES, locked, refuse_used
from seq2seq.runs.files import write_yaml
from seq2seq.training.module import Seq2SeqModule

FIXED = ("model.", "optimizer.", "scheduler.", "handoff")
"""Prefixes of the keys that must not change when a run resumes."""

IRRELEVANT = (
    "resume", "checkpoint.", "logger.", "trainer.enable_", "trainer.log_every_n_steps", "optimized_metric",
    "callbacks.last_checkpoint.every_", "parts",
)  # fmt: skip
"""Keys, or prefixes of keys, that do not change the results."""

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a run begins."""

    output_dir: Path
    settings: Mapping[str, Any]
    checkpoint: str | None = None  # that it resumes from; None for a run from the beginning
    saved: Mapping[str, Any] = {}  # the content of the checkpoint
    position: tuple[int, int] = (0, 0)  # the epoch, counted from 0, and how many of its batches are done
    results: dict[str, Any] | None = None  # the content of ``metrics.json``, if the run is finished already

    def check(self, module: Seq2SeqModule) -> None:
        """Raise a `UserError` if the checkpoint belongs to another run, and log what else has changed since."""
        if self.checkpoint is None:
            return
        resume, again = f"resume={self.checkpoint}", "give the overrides of that run again"
        for part in ("source", "target", "features"):
            own, other = (one.get(f"{part}_tokenizer") for one in (module.hparams, self.saved[HYPERPARAMETERS]))
            if own != other:
                raise UserError(f"data: the {part} vocabulary differs from that of {resume}; give the data of that run")
        averaged = "averaging_state" in self.saved
        if averaged is not (self.settings["weight_averaging"] > 0):
            raise UserError(f"weight_averaging: {resume} was trained {'with' if averaged else 'without'} it; {again}")
        then = dict(flatten_keys(self.saved["seq2seq_config"]))
        for key, now in flatten_keys(module.config):
            if now == then.get(key, now) or key.startswith(IRRELEVANT):
                continue
            if key.startswith(FIXED):
                raise UserError(f"{key}={now} differs from the {then[key]} that {resume} was trained with; {again}")
            log.warning("%s=%s from here on; it was %s", key, now, then[key])

    @contextmanager
    def entered(self, trainer: pl.Trainer, overrides: Sequence[str]) -> Iterator[None]:
        """Lock the directory, write the settings there, and restore the log; of several processes, the first does so.

        The directory is checked once more, as another run may have started in the same second.
        """
        check_version(trainer)
        if not trainer.is_global_zero:
            yield
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with locked(self.output_dir):
            # Earlier results do not belong to the checkpoints that follow.
            stale = [METRICS, PREDICTIONS, FAILURE, "learning_curves.png"]
            if self.settings["resume"] == "auto" and self.checkpoint is None and (self.output_dir / CONFIG).exists():
                log.warning("%s holds an unfinished run; it starts again from the beginning", self.output_dir)
                stale += RUN_FILES
            else:
                refuse_used(self.output_dir, self.checkpoint)
            for path in (*map(self.output_dir.joinpath, stale), *self.output_dir.glob("attention_*.png")):
                path.unlink(missing_ok=True)
            write_yaml(self.output_dir / CONFIG, {**self.settings, "resume": self.checkpoint})
            write_yaml(self.output_dir / OVERRIDES, list(overrides))
            restore_log(trainer.loggers, self.saved)
            yield


def find_start(output_dir: Path, settings: Mapping[str, Any]) -> Start:
    """Return where a run begins; raise a `UserError` if its directory holds another, or the checkpoint is not valid."""
    auto = settings["resume"] == "auto"
    if auto and (output_dir / CONFIG).exists():
        check_same(output_dir, settings)
        if (output_dir / METRICS).exists():
            (output_dir / FAILURE).unlink(missing_ok=True)  # left by an attempt with other settings
            return Start(output_dir, settings, results=json.loads((output_dir / METRICS).read_text(encoding="utf-8")))
        checkpoint, saved = newest_checkpoint(output_dir)
    else:
        checkpoint = None if auto else settings["resume"]
        saved = read_to_resume(checkpoint) if checkpoint else {}
        refuse_used(output_dir, checkpoint)
    done, epochs = position(saved) if checkpoint else (0, 0), settings["trainer"].get("max_epochs", -1)
    if 0 < epochs < done[0]:
        raise UserError(f"trainer.max_epochs={epochs} must be at least the {done[0]} epochs that are already done")
    return Start(output_dir, settings, checkpoint, saved, done)


def check_same(output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Raise a `UserError` if the directory holds a run with other settings, finished or not."""
    before = dict(flatten_keys(yaml.safe_load((output_dir / CONFIG).read_text(encoding="utf-8")) or settings))
    now = dict(flatten_keys(settings))
    for key in sorted(before.keys() | now.keys()):
        # An older version lacks newer keys; their defaults, null or false, change nothing.
        same = (before.get(key) or None) == (now.get(key) or None)
        if not same and not key.startswith((*IRRELEVANT, "threads")):  # which `Start.check` mentions
            both = f"{key}={before.get(key)}, and this one has {now.get(key)}"
            raise UserError(f"{output_dir} holds a run with {both}; choose another directory, or remove it")


def read_to_resume(path: str) -> dict[str, Any]:
    """Read a checkpoint; raise a `UserError` if it is not valid, or holds less than training wrote."""
    saved = read_checkpoint(path, "resume")
    if missing := [section for section in SECTIONS if section not in saved]:
        raise UserError(f"resume={path} lacks {', '.join(missing)}: predict with it, or resume from another checkpoint")
    return saved


def newest_checkpoint(output_dir: Path) -> tuple[str | None, Mapping[str, Any]]:
    """Return the path of the whole checkpoint with the most steps, or None, and its content; log which are damaged."""
    found = {}
    for path in (output_dir / "last.ckpt", output_dir / "best.ckpt"):  # of two with as many steps, last.ckpt is later
        if path.exists():
            try:
                found[str(path)] = read_to_resume(str(path))
            except UserError as error:
                log.warning("%s; it is not used", error)
    newest = max(found, key=lambda path: found[path]["global_step"], default=None)
    return newest, found.get(newest, {})


def restore_log(loggers: Sequence[Logger], saved: Mapping[str, Any]) -> None:
    """Begin ``metrics.csv`` with what a checkpoint holds of it; Lightning's logger would begin with nothing."""
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            for row in csv.DictReader(saved.get("seq2seq_log", "").splitlines()):
                step = int(row.pop("step"))
                if step < saved["global_step"]:  # the learning rate of the next step has been logged, too
                    numbers = {key: int(one) if one.isdecimal() else float(one) for key, one in row.items() if one}
                    logger.experiment.log_metrics(numbers, step)
            logger.save()


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested mappings, sorted, with their values."""
    for key in sorted(tree):
        if isinstance(tree[key], Mapping):
            yield from flatten_keys(tree[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tree[key]
