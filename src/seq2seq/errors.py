"""The error for mistakes of the user, and what becomes one."""

import logging
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

log = logging.getLogger(__name__)

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
"""Signals that ask a program to end: Ctrl-C, `kill` and Slurm, and Slurm before a job's time is up."""


class Stopped(SystemExit):
    """Raised when a signal ends the program, with the exit code that shells expect: 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


def visible(text: str) -> str:
    r"""Return a text with control characters as escapes, so that a terminal shows them instead of obeying them.

    Example:
        >>> print(visible("\x1b[2J and\r"))
        \x1b[2J and\x0d
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


class UserError(ValueError):
    """A mistake in a setting or a file: the scripts print it as one line and exit with code 1.

    The message says what is wrong, gives the value, and says what is allowed. Any other exception is a bug and keeps
    its traceback.
    """


LIBRARIES = ("torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "hydra", "omegaconf")
"""What settings are handed on to; an error that one of these raises is about the setting."""


@contextmanager
def about_setting(key: str, *, whole_run: bool = False) -> Iterator[None]:
    """Turn what a library says about a setting into one line; any other error keeps its traceback, below the key.

    An error that passes through a class of the user's keeps its traceback, even if that class has called a library. A
    ``ValueError`` of `seq2seq.nn` names its key already.

    Args:
        key: The setting, or the section, whose values the block hands to a library or to a class of the user's.
        whole_run: Whether the block is about other settings, too, so that an error that is kept must not name this one.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
        foreign = {name.partition(".")[0] for name in modules[2:]} - {*LIBRARIES, "seq2seq"} - sys.stdlib_module_names
        if modules[-1].startswith("seq2seq.nn.") and type(error) is ValueError:
            raise UserError(str(error)) from error
        if modules[-1].partition(".")[0] in LIBRARIES and not foreign:
            more = "; HYDRA_FULL_ERROR=1 shows where" * whole_run
            raise UserError(f"{key}: {' '.join(str(error).split()) or type(error).__name__}{more}") from error
        if not whole_run:
            log.error("%s leads to this error:", key)
        raise


def import_extra(package: str, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import a package of an extra in ``pyproject.toml``; raise a `UserError` if it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed: pip install -e '.[{extra}]'") from error
