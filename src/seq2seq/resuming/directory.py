"""The lock of a run's directory, and what an earlier start of the same run has left there."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from seq2seq.errors import UserError
from seq2seq.runs.directory import CONFIG, FAILURE, METRICS, OVERRIDES, RUN_FILES, flatten_keys, locked, refuse_used
from seq2seq.runs.files import write_yaml

log = logging.getLogger(__name__)

IRRELEVANT = (
    "resume", "checkpoint.", "logger.", "trainer.enable_", "trainer.log_every_n_steps", "optimized_metric",
    "callbacks.best_checkpoint.resume", "callbacks.last_checkpoint.resume", "callbacks.last_checkpoint.every_",
)  # fmt: skip
"""Keys, or prefixes of keys, that do not change the results."""


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
