"""A run's directory: whether it is free, and what stands in it before training begins."""

import csv
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import CSVLogger, Logger

from seq2seq.errors import UserError
from seq2seq.runs.files import write_file
from seq2seq.training.checkpoints import HYPERPARAMETERS

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""The resolved config; its presence means that the directory is taken."""

OVERRIDES = "overrides.yaml"
"""What the command line of the run said."""

METRICS = "metrics.json"
"""The results; its presence means that the run is finished."""

FAILURE = "error.txt"
"""Where a failed run of a sweep leaves its reason."""

WITHOUT_EFFECT = ("resume", "skip_finished", "logger.", "trainer.enable_", "trainer.log_every_n_steps")
"""Settings that do not change what a run finds, or the beginnings of their keys."""

RUN_FILES = (CONFIG, "best.ckpt", "last.ckpt", METRICS, "predictions.tsv")
"""Files by which a directory is known to hold a run."""


def refuse_used(output_dir: Path, resume: str | None = None) -> None:
    """Refuse a directory that holds a run, unless that run is the one to resume.

    Raises:
        UserError: If it does.
    """
    resumed_here = resume is not None and Path(resume).expanduser().resolve().parent == output_dir.resolve()
    if resumed_here or not any((output_dir / name).exists() for name in RUN_FILES):
        return
    last = output_dir / "last.ckpt"
    go_on = f", or go on with resume={last}" if last.exists() else ""
    raise UserError(f"hydra.run.dir={output_dir} already holds a run; choose another directory{go_on}")


def finished(output_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ``metrics.json`` of the finished run that a directory holds; None if there is none.

    Raises:
        UserError: If the directory holds a run, finished or not, whose settings were others.
    """
    if not (output_dir / CONFIG).exists():
        return None
    before = dict(leaves(yaml.safe_load((output_dir / CONFIG).read_text(encoding="utf-8")) or {}))
    now = dict(leaves(settings))
    for key in sorted(before.keys() | now.keys()):
        if before and before.get(key) != now.get(key) and not key.startswith(WITHOUT_EFFECT):
            raise UserError(
                f"{output_dir} holds a run with {key}={before.get(key)}, and this one has {now.get(key)}; "
                "choose another hydra.sweep.dir, or remove it"
            )
    if not (output_dir / METRICS).exists():
        return None
    (output_dir / FAILURE).unlink(missing_ok=True)  # of an attempt with other settings
    return json.loads((output_dir / METRICS).read_text(encoding="utf-8"))


@contextmanager
def claimed(
    output_dir: Path, settings: Mapping[str, Any], overrides: Sequence[str], *, resume: str | None, anew: bool
) -> Iterator[None]:
    """Take a directory for a run and write its settings there; nobody else can take it meanwhile.

    Args:
        output_dir: The directory.
        settings: Of the run.
        overrides: Of its command line.
        resume: The checkpoint from which the run goes on.
        anew: Whether what a run that did not finish has left may be removed.

    Raises:
        UserError: If another run has the directory, or had it first, as two that start in the same second may try.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(output_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError:
            raise UserError(f"hydra.run.dir={output_dir} is in use by another run; choose another directory") from None
        if anew and resume is None and (output_dir / CONFIG).exists():
            log.warning("%s holds a run that did not finish; it starts anew", output_dir)
            for name in RUN_FILES:
                (output_dir / name).unlink(missing_ok=True)
        refuse_used(output_dir, resume)
        # What an earlier part of the run left says nothing of the checkpoints to come.
        pictures = ("learning_curves.png", *(path.name for path in output_dir.glob("attention_*.png")))
        for stale in (METRICS, "predictions.tsv", FAILURE, *pictures):
            (output_dir / stale).unlink(missing_ok=True)
        write_yaml(output_dir / CONFIG, dict(settings))
        write_yaml(output_dir / OVERRIDES, list(overrides))
        yield
    finally:
        os.close(handle)


def write_yaml(path: Path, content: object) -> None:
    """Write numbers, strings, lists and dicts as YAML."""
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    write_file(path, lambda file: file.write(text))


def check_resumable(hparams: Mapping[str, Any], saved: Mapping[str, Any], resume: str, *, averaging: bool) -> None:
    """Refuse a checkpoint whose run was another, and log what else has changed since.

    Args:
        hparams: Of the module that is to go on.
        saved: The whole checkpoint.
        resume: Its path.
        averaging: Whether the weights are averaged from here on.

    Raises:
        UserError: If its model, optimiser or vocabularies are others.
    """
    before = saved[HYPERPARAMETERS]
    for side in ("source", "target"):
        if hparams[side] != before[side]:
            raise UserError(
                f"data: the {side} vocabulary differs from that of resume={resume}; "
                "give the training data of that run again"
            )
    if averaging is not ("averaging_state" in saved):
        was = "with" if "averaging_state" in saved else "without"
        raise UserError(f"weight_averaging: resume={resume} was trained {was} it; give the overrides of that run again")
    then = dict(leaves(before))
    for key, now in leaves(hparams):
        if now == then.get(key):
            continue
        if key.startswith(("model.", "optimizer.", "handoff")):
            raise UserError(
                f"{key}={now} differs from the {then.get(key)} that resume={resume} was trained with; "
                "give the overrides of that run again"
            )
        log.warning("%s=%s from here on; it was %s", key, now, then.get(key))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested dicts, in order, and their values."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def keep_old_rows(loggers: Sequence[Logger], output_dir: Path, steps: int) -> None:
    """Keep, for a run that resumes in its own directory, the rows of ``metrics.csv`` of the steps that are done.

    Lightning's logger starts the file anew.
    """
    path = output_dir / "metrics.csv"
    if steps == 0 or not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < steps]
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            for row in rows:
                numbers = {name: float(value) for name, value in row.items() if value and name != "step"}
                logger.experiment.log_metrics(numbers | {"epoch": int(row["epoch"])}, int(row["step"]))
            logger.save()
