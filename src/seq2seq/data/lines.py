"""Lines of UTF-8 text, with the place named when something is wrong with one."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from seq2seq.errors import UserError


def read_lines(path: str, key: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers from 1, without their ends.

    Args:
        path: The file.
        key: The setting that named it, for the error.

    Raises:
        UserError: If it cannot be opened, or a line is not UTF-8.
    """
    with open_file(path, key) as file:
        yield from decode_lines(file, path)


def open_file(path: str, key: str) -> BinaryIO:
    """Open a file for reading bytes.

    Raises:
        UserError: If it cannot be opened; ``key`` is the setting that named it.
    """
    try:
        return Path(path).expanduser().open("rb")
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}") from error


def decode_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of an open file with their numbers; a line ends at ``\n`` or ``\r\n`` and nowhere else.

    A byte order mark at the start is skipped.

    Raises:
        UserError: If a line is not UTF-8.
    """
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            place = len(line) - len(error.object) + error.start  # a byte order mark may have been cut off
            raise UserError(
                f"{name}:{number}: byte {place + 1} of the line, 0x{line[place]:02x}, is not UTF-8; "
                "save the file as UTF-8"
            ) from error
        yield number, text.removesuffix("\n").removesuffix("\r")
