"""Lines of UTF-8 text; errors name the file and the line."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from seq2seq.errors import UserError

MAX_LINE = 1_000_000
"""Maximum number of bytes in a line."""

LARGE = 32 * 2**20
"""Number of bytes above which reading a file shows a progress bar and is worth a cache."""

HINT_OF_CR = "; save the file with line ends LF or CR LF, and not CR alone"

GZIP = b"\x1f\x8b"
"""The first bytes of every file that gzip has written."""

Wrap = Callable[[BinaryIO], BinaryIO]


def read_lines(path: str, key: str, wrap: Wrap = lambda file: file) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, unpacked if gzip has packed it, with their numbers from 1 and without line ends.

    The setting ``key`` names the file, and ``wrap`` wraps it, once open, to show how much of it has been read.

    Raises:
        UserError: If the file cannot be read or changes meanwhile, or a line is not valid.
    """
    given = Path(path)
    if given.exists() and not (given.is_file() or given.is_dir()):  # a pipe can be read once, and opening it may block
        raise UserError(f"{key}={path} must be a file, and not a pipe or a device")
    with open_file(path, key) as file:
        before = os.fstat(file.fileno())
        try:
            packed = file.peek(2)[:2] == GZIP
        except OSError as error:
            raise UserError(f"{key}={path} cannot be read: {error.strerror}") from error
        read = wrap(file)
        yield from decode_lines(io.BufferedReader(gzip.GzipFile(fileobj=read)) if packed else read, path)  # pyright: ignore[reportArgumentType]
        after = given.stat()
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
            raise UserError(f"{key}={path} changed while it was read; start again when it is complete")


def open_file(path: str, key: str) -> io.BufferedReader:
    """Open the file that the setting ``key`` names, for reading bytes.

    Raises:
        UserError: If it cannot be opened.
    """
    try:
        return Path(path).expanduser().open("rb")
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}") from error


def decode_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of an open file with their numbers from 1. A line ends at ``\n`` or ``\r\n`` and nowhere else.

    A byte order mark at the start is skipped. ``name`` is what errors call the file.

    Raises:
        UserError: If the file cannot be read to its end; if a line is not UTF-8, is longer than `MAX_LINE`, or contains
            a carriage return or NUL.
    """
    number = 0
    try:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                hint = HINT_OF_CR if b"\r" in line.rstrip(b"\r\n") else ""
                raise UserError(f"{name}:{number}: the line has more than {MAX_LINE} bytes{hint}")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                position = len(line) - len(error.object) + error.start  # the error does not count the byte order mark
                byte = f"byte {position + 1} of the line, 0x{line[position]:02x}"
                raise UserError(f"{name}:{number}: {byte}, is not UTF-8; save the file as UTF-8") from error
            if "\r" in text:
                raise UserError(f"{name}:{number}: a carriage return in the middle of the line{HINT_OF_CR}")
            if "\0" in text:
                raise UserError(f"{name}:{number}: the line contains NUL, so the file is damaged or no UTF-8 text")
            yield number, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name}:{number + 1}: the gzip file is damaged or incomplete from here on") from error
    except OSError as error:
        raise UserError(f"{name}:{number + 1}: cannot be read: {error.strerror or error}") from error


@contextmanager
def reading_progress(paths: list[str]) -> Iterator[Wrap]:
    """Provide what wraps open files so that a bar on stderr, if that is a terminal, shows how much has been read.

    There is no bar if the files are smaller than `LARGE` together.
    """
    sizes = [Path(path).stat().st_size for path in paths if Path(path).is_file()]
    console = Console(stderr=True)
    columns = ("reading", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=sum(sizes) < LARGE or not console.is_terminal) as bar:
        task = bar.add_task("reading", total=sum(sizes))
        yield lambda file: bar.wrap_file(file, task_id=task)
