"""Run a command from a script: errors become one line and an exit code."""

import atexit
import errno
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from seq2seq.errors import UserError, visible
from seq2seq.runs.directory import CONFIG, FAILURE, OVERRIDES
from seq2seq.runs.files import write_file, write_yaml


def remove_if_empty(output_dir: Path, log_file: Path) -> None:
    """Remove the directory that Hydra made for a refused run, unless it holds more than an empty log."""
    with suppress(FileNotFoundError):  # another process of the run has done so
        if [*output_dir.iterdir()] == [log_file] and log_file.stat().st_size == 0:
            log_file.unlink()
            output_dir.rmdir()


def leave_log_to_first(output_dir: Path, log_file: Path) -> None:
    """Log nothing in this process, one of several but not the first, and leave no empty log behind."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if "_ddp_process_" in log_file.name:  # Lightning has started this process, and named its job so
        log_file.unlink(missing_ok=True)
        threading.Thread(target=end_with_parent, args=[os.getppid()], daemon=True).start()
    else:  # at the end: the log may be that of the first process
        atexit.register(remove_if_empty, output_dir, log_file)


def end_with_parent(parent: int) -> None:
    """Wait until the parent of this process has ended, and end it, too; it might wait for the parent forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def is_later_process() -> bool:
    """Return whether this process is one of several of the same run, and not the first."""
    variables = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as torchrun, Lightning and Slurm set them
    return next((os.environ[name] for name in variables if name in os.environ), "0") != "0"


class VisibleFormatter(logging.Formatter):
    """Formats log messages for a terminal, on which names and values from files must have no effect."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message with its control characters escaped."""
        return visible(super().format(record))


@contextmanager
def writable_output() -> Iterator[None]:
    """End with one line if the disk is full, and with none if the reader of our output closed it, as `head` does."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EPIPE):
            raise
        sys.stdout = None  # Python would try to write the rest of it at the end
        if error.errno != errno.EPIPE:
            print(f"error: output cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit code 1."""
    try:
        with writable_output():
            yield
    except UserError as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        raise SystemExit(1) from None


def run_main(main: Callable[[], object]) -> None:
    """Run a script's main function; Ctrl-C ends it with one line and exit code 130, even while it imports PyTorch."""
    logging.raiseExceptions = False  # a log on a full disk is no reason for a traceback
    try:
        with writable_output():  # of --help
            main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def run_job(
    job: Callable[..., object], config: DictConfig, *, in_sweeps: bool = False, several: bool = False
) -> object:
    """Run a job in the directory that Hydra made for it.

    Args:
        job: Called with the config, the directory and the overrides.
        config: The composed config.
        in_sweeps: Whether a sweep continues after a failure, which is printed and kept in the run's directory for the
            summary. Otherwise a failure ends the sweep.
        several: Whether this process may be one of several of the same run.
    """
    hydra = HydraConfig.get()
    output_dir = Path(hydra.runtime.output_dir)
    overrides = list(hydra.overrides.task)
    log_file = output_dir / f"{hydra.job.name}.log"
    if several and is_later_process():
        leave_log_to_first(output_dir, log_file)
    if hydra.mode != RunMode.MULTIRUN or not in_sweeps:
        with one_line_errors():
            try:
                return job(config, output_dir, overrides)
            except UserError:
                remove_if_empty(output_dir, log_file)
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
