"""The directory of a run: whether it is free, its lock, and its settings."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from seq2seq.errors import UserError
from seq2seq.runs.files import write_yaml

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""The resolved config; if it exists, the directory is taken."""

OVERRIDES = "overrides.yaml"
"""The overrides of the run's command line."""

METRICS = "metrics.json"
"""The results; if it exists, the run is finished."""

FAILURE = "error.txt"
"""The reason why a run of a sweep failed."""

IRRELEVANT = (
    "resume", "checkpoint.", "logger.", "trainer.enable_", "trainer.log_every_n_steps", "optimized_metric",
    "callbacks.best_checkpoint.resume", "callbacks.last_checkpoint.resume", "callbacks.last_checkpoint.every_",
)  # fmt: skip
"""Keys, or prefixes of keys, that do not change the results."""

RUN_FILES = ("best.ckpt", "last.ckpt", METRICS, "predictions.tsv")
"""Files that show that a directory holds a run from which something would be lost."""


def refuse_used(output_dir: Path, resume: str | None = None, *, anew: bool = False) -> None:
    """Raise if a directory holds a run, unless that run is the one to resume, or the directory's own starts anew.

    Raises:
        UserError: If it does.
    """
    if anew and (output_dir / CONFIG).exists():
        return
    resumed_here = resume is not None and Path(resume).expanduser().resolve().parent == output_dir.resolve()
    if resumed_here or not any((output_dir / name).exists() for name in RUN_FILES):
        return
    last = output_dir / "last.ckpt"
    go_on = f", or continue with resume={last}" if last.exists() else ""
    raise UserError(f"hydra.run.dir={output_dir} already holds a run; choose another directory{go_on}")


def finished(output_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ``metrics.json`` of the finished run that a directory holds; None if there is none.

    Raises:
        UserError: If the directory holds a run with other settings, finished or not.
    """
    if not (output_dir / CONFIG).exists():
        return None
    before = dict(flatten_keys(yaml.safe_load((output_dir / CONFIG).read_text(encoding="utf-8")) or {}))
    now = dict(flatten_keys(settings))
    for key in sorted(before.keys() | now.keys()):
        if before and before.get(key) != now.get(key) and not key.startswith(IRRELEVANT):
            raise UserError(
                f"{output_dir} holds a run with {key}={before.get(key)}, and this one has {now.get(key)}; "
                "choose another directory, or remove it"
            )
    if not (output_dir / METRICS).exists():
        return None
    (output_dir / FAILURE).unlink(missing_ok=True)  # left by an attempt with other settings
    return json.loads((output_dir / METRICS).read_text(encoding="utf-8"))


HANDLES: list[int] = []
"""Of locked directories."""


def close_handles() -> None:
    """Close the handles in a forked process, such as a worker, which could otherwise keep the lock of a dead run."""
    while HANDLES:
        os.close(HANDLES.pop())


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=close_handles)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a directory or a file; the lock ends with the process, however it ends. On Windows, nothing is locked.

    Args:
        path: The directory or the file.
        wait: Whether to wait until another process has unlocked it.

    Raises:
        UserError: If another process has locked it.
    """
    if os.name == "nt":
        yield
        return
    import fcntl  # not on Windows

    handle = os.open(path, os.O_RDONLY)
    HANDLES.append(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"hydra.run.dir={path} is in use by another run; choose another directory") from None
        yield
    finally:
        HANDLES.remove(handle)
        os.close(handle)


@contextmanager
def lock_run_dir(
    output_dir: Path, settings: Mapping[str, Any], overrides: Sequence[str], *, resume: str | None, anew: bool
) -> Iterator[None]:
    """Lock a directory for a run, and write the run's settings there.

    Args:
        output_dir: The directory.
        settings: The settings of the run.
        overrides: The overrides of its command line.
        resume: The checkpoint from which the run continues.
        anew: Whether the files of an unfinished run may be removed.

    Raises:
        UserError: If another run uses the directory; two runs may start in the same second.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with locked(output_dir):
        if anew and resume is None and (output_dir / CONFIG).exists():
            log.warning("%s holds an unfinished run; it starts again from the beginning", output_dir)
            for name in RUN_FILES:
                (output_dir / name).unlink(missing_ok=True)
        refuse_used(output_dir, resume, anew=anew)
        # Earlier results do not belong to the checkpoints that follow.
        pictures = ("learning_curves.png", *(path.name for path in output_dir.glob("attention_*.png")))
        for stale in (METRICS, "predictions.tsv", FAILURE, *pictures):
            (output_dir / stale).unlink(missing_ok=True)
        write_yaml(output_dir / CONFIG, dict(settings))
        write_yaml(output_dir / OVERRIDES, list(overrides))
        yield


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested mappings, sorted, with their values."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            yield from flatten_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
