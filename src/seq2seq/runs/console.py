"""Run a command from a script: errors become one line and an exit code."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from seq2seq.errors import UserError, visible
from seq2seq.runs.directory import CONFIG, FAILURE, OVERRIDES
from seq2seq.runs.files import write_file, write_yaml


def remove_if_empty(output_dir: Path, log_file: Path) -> None:
    """Remove the directory that Hydra made for a refused run, unless it holds more than an empty log."""
    if [*output_dir.iterdir()] == [log_file] and log_file.stat().st_size == 0:
        log_file.unlink()
        output_dir.rmdir()


class VisibleFormatter(logging.Formatter):
    """Formats log messages for a terminal, on which names and values from files must have no effect."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message with its control characters escaped."""
        return visible(super().format(record))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit code 1."""
    try:
        yield
    except UserError as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        sys.stdout = None
        raise SystemExit(1) from None


def run_main(main: Callable[[], object]) -> None:
    """Run a script's main function; Ctrl-C ends it with one line and exit code 130, even while it imports PyTorch."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def run_job(job: Callable[..., object], config: DictConfig, *, in_sweeps: bool = False) -> object:
    """Run a job in the directory that Hydra made for it.

    Args:
        job: Called with the config, the directory and the overrides.
        config: The composed config.
        in_sweeps: Whether a sweep continues after a failure, which is printed and kept in the run's directory for the
            summary. Otherwise a failure ends the sweep.
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
        print(visible(f"error: {' '.join(overrides)}: {reason}"), file=sys.stderr)
        write_file(output_dir / FAILURE, lambda file: file.write(reason + "\n"))
        if not (output_dir / CONFIG).exists():  # otherwise the overrides are those of an earlier run
            write_yaml(output_dir / OVERRIDES, overrides)
        return None
