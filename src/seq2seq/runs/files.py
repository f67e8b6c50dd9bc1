"""Files that are complete or absent."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seq2seq.errors import UserError


@contextmanager
def replacing(path: Path, key: str) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and rename it to ``path`` if nothing goes wrong.

    Args:
        path: The file to write; an older one stays as it is until the new one is complete.
        key: The setting that named it, for the error.

    Raises:
        UserError: If the file cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link stays, and what it points to is replaced
    special = target.exists() and not target.is_file()  # a pipe or a device cannot be renamed onto
    # A suffix after the name would hide the format from those who go by it, such as matplotlib.
    temporary = target if special else target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        if not special:
            temporary.replace(target)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be written: {error.strerror or error}") from error
    finally:
        if not special:
            temporary.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path, key: str) -> Iterator[IO[str]]:
    """Give a UTF-8 file to write into, which takes the place of ``path`` when it is complete; see `replacing`."""
    with replacing(path, key) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_file(path: Path, write: Callable[[IO[str]], object]) -> None:
    """Let ``write`` fill a new UTF-8 file that then takes the place of ``path``."""
    with output_file(path, "file") as file:
        write(file)


def check_different(**paths: object) -> None:
    """Refuse two files of a command that are one; the names are the keys, and None is no file.

    Raises:
        UserError: If what one holds would be lost to the other.
    """
    seen: dict[Path, str] = {}
    for key, path in paths.items():
        if path is None:
            continue
        place = Path(str(path)).expanduser().resolve()
        if place in seen:
            raise UserError(f"{key}={path} is the {seen[place]}, which would be lost; give another file")
        seen[place] = key
