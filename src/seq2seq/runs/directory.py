"""The directory of a run: what it holds, and whether it is free."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seq2seq.errors import UserError

CONFIG = "config.yaml"
"""The resolved config; if it exists, the directory is taken."""

OVERRIDES = "overrides.yaml"
"""The overrides of the run's command line."""

METRICS = "metrics.json"
"""The results; if it exists, the run is finished."""

FAILURE = "error.txt"
"""The reason why a run of a sweep failed."""

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


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested mappings, sorted, with their values."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            yield from flatten_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
