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


def write_file(path: Path, write: Callable[[IO[str]], object]) -> None:
    """Let ``write`` fill a new UTF-8 file that then takes the place of ``path``."""
    with replacing(path, "file") as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        write(file)
