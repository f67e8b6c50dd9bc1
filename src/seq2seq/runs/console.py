"""Run a command from a script: errors become one line and an exit code."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from seq2seq.errors import UserError
from seq2seq.runs.directory import CONFIG, FAILURE, OVERRIDES
from seq2seq.runs.files import write_file, write_yaml


def remove_if_empty(output_dir: Path, log_file: Path) -> None:
    """Remove the directory that Hydra made for a refused run, unless more than that run's empty log stands in it."""
    if [*output_dir.iterdir()] == [log_file] and log_file.stat().st_size == 0:
        log_file.unlink()
        output_dir.rmdir()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a mistake of the user's into one line on stderr and exit code 1."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stdout = None
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def run_job(job: Callable[..., object], config: DictConfig, *, in_sweeps: bool = False) -> object:
    """Run a job in the directory that Hydra made for it.

    Args:
        job: Takes the config, the directory and the overrides.
        config: Composed.
        in_sweeps: Whether a failure in a sweep ends this run only: it is printed, and kept in the run's directory for
            the summary. Otherwise it ends the sweep.
    """
    hydra = HydraConfig.get()
    output_dir = Path(hydra.runtime.output_dir)
    overrides = list(hydra.overrides.task)
    if hydra.mode != RunMode.MULTIRUN or not in_sweeps:
        with one_line_errors():
            try:
                return job(config, output_dir, overrides)
            except UserError:
                remove_if_empty(output_dir, output_dir / f"{hydra.job.name}.log")
                raise
    try:
        return job(config, output_dir, overrides)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, UserError):
            traceback.print_exc()
        print(f"error: {' '.join(overrides)}: {reason}", file=sys.stderr)
        write_file(output_dir / FAILURE, lambda file: file.write(reason + "\n"))
        if not (output_dir / CONFIG).exists():  # or they are those of the run that the directory holds
            write_yaml(output_dir / OVERRIDES, overrides)
        return None
