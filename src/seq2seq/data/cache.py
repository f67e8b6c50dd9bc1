"""Encoded training pairs on the disk, so that large files are read and tokenised once."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from seq2seq.data.lines import open_file
from seq2seq.errors import UserError

Content = TypeVar("Content")

VERSION = 2
"""Raised when the content of a cache changes."""


def cache_folder(cache_dir: str | None, files: Sequence[str], settings: Mapping[str, Any]) -> Path:
    """Return the folder for what is made of files, on whose content and on plain settings its name depends.

    It is in ``cache_dir``; None is ``.cache`` beside the first file, or the user's cache folder if that cannot be
    written to.

    Raises:
        UserError: If a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with open_file(path, "data.train") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    digest.update(json.dumps([VERSION, settings], sort_keys=True).encode())
    root = Path(files[0]).parent / ".cache"
    if cache_dir is not None:
        root = Path(cache_dir)
    elif not os.access(root.parent, os.W_OK):
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "seq2seq")
    return root.expanduser() / digest.hexdigest()


def build_once(
    locate: Callable[[], Path], files: Sequence[str], build: Callable[[Path], None], read: Callable[[Path], Content]
) -> Content:
    """Return what a folder holds, which is complete or absent; of several processes one builds it.

    Args:
        locate: Returns the folder, whose name depends on the content of the files.
        files: What it is made of.
        build: Fills an empty folder, which then gets its name.
        read: Returns the content of a complete folder.

    Raises:
        UserError: If it cannot be written, or the files change meanwhile.
    """
    folder = locate()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                partial = folder.with_name(f"{folder.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
                partial.mkdir()
                try:
                    build(partial)
                    if locate() != folder:
                        raise UserError(
                            f"{', '.join(files)} changed while it was read; start again when it is complete"
                        )
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(f"data.cache_dir: {folder} cannot be written: {error.strerror or error}") from error
    return read(folder)
