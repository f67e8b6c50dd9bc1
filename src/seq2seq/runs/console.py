"""Run a command from a script: errors become one line and an exit code."""

import atexit
import errno
import inspect
import logging
import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seq2seq.errors import UserError, visible
from seq2seq.runs.directory import CONFIG, FAILURE, OVERRIDES
from seq2seq.runs.files import write_file, write_yaml
from seq2seq.runs.parts import import_parts
from seq2seq.runs.threads import set_threads


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
    """End this process, which might wait for its parent forever, when the parent has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class VisibleFormatter(logging.Formatter):
    """Formats log messages for a terminal, on which names and values from files must have no effect."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message with its control characters escaped."""
        return visible(super().format(record))


def print_error(error: Exception, line: str) -> None:
    """Print an error as a line on stderr; below its traceback if it is a bug or HYDRA_FULL_ERROR=1 asks for all."""
    if not isinstance(error, UserError) or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exc()
    print(visible(f"error: {line}") + "\n", end="", file=sys.stderr)  # at once, as other processes may print theirs


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End with one line and exit code 1 at a `UserError` and on a full disk; if stdout's reader has left, with none."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        print_error(error, str(error))
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EPIPE):
            raise
        sys.stdout = None  # Python would try to write the rest of it at the end
        if error.errno != errno.EPIPE:  # which is how `head` closes our output
            print(f"error: output cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None


@cache
def known_keys(config: Path) -> list[str]:
    """Return the top-level keys and the groups of a command's config."""
    with initialize_config_dir(str(config.parent), version_base="1.3"):
        known = compose(config.stem, return_hydra_config=True)
    return sorted({str(one).partition("/")[0] for one in (*known, *known.hydra.runtime.choices)})


def options_of(group: str, config: Path) -> list[str]:
    """Return the options of a group of a command's config; none if there is no such group."""
    return sorted(path.stem for path in (config.parent / group).glob("*.yaml"))


def check_overrides(config: Path, arguments: Sequence[str]) -> None:
    """Raise a `UserError` for what Hydra answers with a traceback or not at all: no name for a group, a new section.

    ``config`` is the command's, a YAML file beside the folders of the groups.
    """
    own_configs = any(one.startswith(("-c", "--config")) or "hydra.searchpath" in one for one in arguments)
    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:  # an option of Hydra's, or a mistake that it names
            continue
        group, value = override.key_or_group, override.value()
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        if options := options_of(group, config):
            named = all(isinstance(one, str | list | dict | Glob | QuotedString) for one in values)
            if not named and not (override.is_delete() and value is None):
                raise UserError(f"{argument} must name an option of the group {group}: {', '.join(options)}")
        elif (override.is_add() or override.is_force_add()) and not own_configs:
            key, keys = re.split("[./@]", group)[0], known_keys(config)
            if key not in keys:
                raise UserError(f"{key} is unknown; the keys are {', '.join(keys)}")


def did_you_mean(key: str, config: Path, arguments: Sequence[str]) -> str:
    """Return a question that names the keys like one that Hydra did not find: those that end in it, or the nearest."""
    GlobalHydra.instance().clear()
    groups = sorted(path.name for path in config.parent.iterdir() if path.is_dir())
    chosen = [one for one in arguments if "," not in one and one.partition("=")[0] in groups]
    try:
        with initialize_config_dir(str(config.parent), version_base="1.3"):
            known: Any = OmegaConf.to_container(compose(config.stem, overrides=chosen))
    except HydraException:  # an option of a folder of the user's
        return "--help lists all keys"
    section = key.partition(".")[0]
    if section in groups and not known.get(section):
        return f"choose an option of {section} first: {', '.join(options_of(section, config))}"
    keys = [*dotted(known), *groups]
    found = [one for one in keys if one.endswith(f".{key}")] or get_close_matches(key, keys, n=1)
    return f"did you mean {' or '.join(found)}?" if found else "--help lists all keys"


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a config and of its sections, such as ``optimizer`` and ``optimizer.lr``."""
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")


def run_main(main: Callable[[], object]) -> None:
    """Run a script's main function; Ctrl-C ends it with one line and exit code 130, even while it imports PyTorch."""
    logging.raiseExceptions = False  # a log on a full disk is no reason for a traceback
    script = Path(inspect.unwrap(main).__code__.co_filename)
    config = script.parents[1] / "configs" / f"{script.stem}.yaml"
    try:
        with one_line_errors():
            check_overrides(config, sys.argv[1:])
            main()
    except SystemExit as end:
        if mistyped := re.match("Could not override '(.+)'", str(end.__context__)):
            print(did_you_mean(mistyped[1], config, sys.argv[1:]), file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def find_command(name: str, config: DictConfig) -> Callable[..., object]:
    """Return a function of `seq2seq.commands`, such as ``train.train_and_score``, with threads set and parts imported.

    It is imported only here, so that ``--help`` answers without PyTorch.
    """
    set_threads(config)
    import_parts(config)
    module, _, function = name.partition(".")
    return getattr(import_module(f"seq2seq.commands.{module}"), function)


def run_command(name: str, config: DictConfig, *arguments: object) -> object:
    """Call a command's function, see `find_command`, with the config and further arguments."""
    with one_line_errors():
        return find_command(name, config)(config, *arguments)


def run_job(name: str, config: DictConfig, *, in_sweeps: bool = False, several: bool = False) -> object:
    """Call a command's function with the config, the directory that Hydra made for it, and the overrides.

    Args:
        name: Of the function; see `find_command`.
        config: The composed config.
        in_sweeps: Whether a sweep continues after a failure, which is printed and kept in the run's directory for the
            summary. Otherwise a failure ends the sweep.
        several: Whether this process may be one of several of the same run.
    """
    hydra = HydraConfig.get()
    output_dir = Path(hydra.runtime.output_dir)
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # '${dataset}' is not Hydra's
    log_file = output_dir / f"{hydra.job.name}.log"
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as torchrun, Lightning and Slurm set them
    if several and next((os.environ[name] for name in ranks if name in os.environ), "0") != "0":
        leave_log_to_first(output_dir, log_file)
    with one_line_errors():
        try:
            return find_command(name, config)(config, output_dir, overrides)
        except Exception as error:
            if hydra.mode == RunMode.MULTIRUN and in_sweeps:
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                print_error(error, f"{' '.join(overrides)}: {reason}")
                write_file(output_dir / FAILURE, reason + "\n")
                if not (output_dir / CONFIG).exists():  # otherwise the overrides are those of an earlier run
                    write_yaml(output_dir / OVERRIDES, overrides)
                return None
            if isinstance(error, UserError):
                remove_if_empty(output_dir, log_file)
            raise
