"""Writing files that are complete or absent."""

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from seq2seq.errors import UserError, visible


@contextmanager
def atomic_write(path: Path, key: str) -> Iterator[Path]:
    """Provide a temporary path beside ``path``, which replaces ``path`` on success.

    If it cannot be written, the `UserError` begins with ``key``, the setting that named it.
    """
    target = Path(os.path.realpath(path))  # a link is kept, and its target replaced
    special = target.exists() and not target.is_file()  # a pipe or a device cannot be renamed onto
    # The name keeps its suffix, from which matplotlib tells the format.
    temporary = target if special else target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        if not special:
            temporary.replace(target)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be written: {error.strerror or error}") from error
    finally:
        if not special:
            with suppress(OSError):  # such as that it is not there
                temporary.unlink()


@contextmanager
def output_file(path: Path, key: str) -> Iterator[IO[str]]:
    """Provide a UTF-8 file to write into, which replaces ``path`` when it is complete; see `atomic_write`."""
    with atomic_write(path, key) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def output_or_stdout(given: object) -> AbstractContextManager[IO[str]]:
    """Provide the file that the setting ``output`` names, see `output_file`, or stdout if it names none."""
    return nullcontext(utf8_stdout()) if given is None else output_file(Path(str(given)).expanduser(), "output")


def write_file(path: Path, text: str) -> None:
    """Write a text as UTF-8."""
    with output_file(path, "file") as file:
        file.write(text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write numbers, strings, lists and dicts as JSON, which lacks infinity and NaN: these become null."""
    finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_file(path, json.dumps(finite, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: Path, content: object) -> None:
    """Write numbers, strings, lists and dicts as YAML."""
    write_file(path, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def utf8_stdout() -> IO[str]:
    """Return stdout, set to UTF-8 regardless of the terminal's settings."""
    if sys.stdout is None:
        raise UserError("output is missing: stdout is closed, so give output=FILE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return sys.stdout


def write_lines(output: IO[str], lines: Iterable[str]) -> None:
    """Write lines and flush, as a reader may be waiting."""
    output.writelines(map(visible, lines) if output.isatty() else lines)
    output.flush()


def user_path(key: str, value: object) -> Path:
    """Return the path that a setting names; raise a `UserError` if no file could have it."""
    if not str(value):
        raise UserError(f"{key}= must name a file or a folder")
    try:
        path = Path(str(value)).expanduser()
        path.resolve().exists()  # which a loop of links, a name that is too long, or NUL ends
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{key}={value} is no path: {getattr(error, 'strerror', None) or error}") from error
    return path


def check_regular(key: str, value: object) -> Path:
    """Return the path of a setting; raise a `UserError` at a pipe or a device, on which reading may wait forever."""
    path = user_path(key, value)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{key}={value} must be a file, and not a pipe or a device")
    return path


def check_free(key: str, path: object, *, overwrite: bool) -> None:
    """Raise a `UserError` if a file that a command is to write exists; None, a folder, a pipe and a device may."""
    if path is not None and user_path(key, path).is_file() and not overwrite:
        raise UserError(f"{key}={path} exists; give overwrite=true to replace it, or another file")


def check_different(**paths: object) -> None:
    """Raise a `UserError` if two files of a command, by config key, are the same; None stands for no file."""
    seen: dict[Path, str] = {}
    for key, path in paths.items():
        if path is not None and (same := seen.setdefault(user_path(key, path).resolve(), key)) != key:
            raise UserError(f"{key}={path} is the {same}, which would be lost; give another file")
