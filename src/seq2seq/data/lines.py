"""Lines of UTF-8 text; errors name the file and the line."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from seq2seq.errors import UserError


def read_lines(path: str, key: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers from 1, without line ends.

    Args:
        path: The file.
        key: The setting that names the file, for errors.

    Raises:
        UserError: If the file cannot be opened, or a line is not UTF-8.
    """
    with open_file(path, key) as file:
        yield from decode_lines(file, path)


def open_file(path: str, key: str) -> BinaryIO:
    """Open a file for reading bytes.

    Args:
        path: The file.
        key: The setting that names the file, for errors.

    Raises:
        UserError: If the file cannot be opened.
    """
    try:
        return Path(path).expanduser().open("rb")
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}") from error


def decode_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of an open file with their numbers from 1. A line ends at ``\n`` or ``\r\n`` and nowhere else.

    A byte order mark at the start is skipped.

    Args:
        file: The open file.
        name: The name of the file, for errors.

    Raises:
        UserError: If a line is not UTF-8.
    """
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            position = len(line) - len(error.object) + error.start  # the error does not count the byte order mark
            raise UserError(
                f"{name}:{number}: byte {position + 1} of the line, 0x{line[position]:02x}, is not UTF-8; "
                "save the file as UTF-8"
            ) from error
        yield number, text.removesuffix("\n").removesuffix("\r")
