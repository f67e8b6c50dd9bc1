"""The directory of a run: what it holds, whether it is free, and its lock."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2seq.errors import UserError

CONFIG = "config.yaml"  # resolved; if it exists, the directory is taken
OVERRIDES = "overrides.yaml"  # of the run's command line
METRICS = "metrics.json"  # the results; if it exists, the run is finished
PREDICTIONS = "predictions.tsv"  # of the test pairs
FAILURE = "error.txt"  # why a run of a sweep failed

RUN_FILES = ("best.ckpt", "last.ckpt", METRICS, PREDICTIONS)
"""Files that show that a directory holds a run from which something would be lost."""


def refuse_used(output_dir: Path, resume: str | None = None) -> None:
    """Raise a `UserError` if a directory holds a run, unless that run is the one to resume."""
    resumed_here = resume is not None and Path(resume).expanduser().resolve().parent == output_dir.resolve()
    if resumed_here or not any((output_dir / name).exists() for name in RUN_FILES):
        return
    go_on = f", or continue with resume={output_dir / 'last.ckpt'}" if (output_dir / "last.ckpt").exists() else ""
    raise UserError(f"hydra.run.dir={output_dir} already holds a run; choose another directory{go_on}")


HANDLES: set[int] = set()  # of locked directories


def close_handles() -> None:
    """Close the handles in a forked process, such as a worker, which could otherwise keep the lock of a dead run."""
    while HANDLES:
        os.close(HANDLES.pop())


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=close_handles)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a directory or a file; the lock ends with the process, however it ends. On Windows, nothing is locked.

    If another process has locked it, wait until that has unlocked it, or raise a `UserError`.
    """
    if os.name == "nt":
        yield
        return
    import fcntl  # not on Windows

    handle = os.open(path, os.O_RDONLY)
    HANDLES.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"hydra.run.dir={path} is in use by another run; choose another directory") from None
        yield
    finally:
        HANDLES.remove(handle)
        os.close(handle)
