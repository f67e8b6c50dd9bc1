"""What all sources have in common that read text files."""

import glob
import logging
from abc import abstractmethod
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ValidationInfo, field_validator

from seq2seq.data.lines import Wrap, read_lines, reading_progress
from seq2seq.data.sources.source import DataSource, Pair, Split
from seq2seq.data.tokenizer import COLUMN
from seq2seq.errors import UserError
from seq2seq.settings import Count

log = logging.getLogger(__name__)


def absolute(given: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - None, a path or a list of paths
    """Return absolute paths, so that a checkpoint can be evaluated from any working directory."""
    if not isinstance(given, list):
        return None if given is None else str(Path(str(given)).expanduser().absolute())
    if not given or not all(isinstance(path, str) for path in given):
        raise UserError(f"data.{info.field_name}={given} must be a file, a pattern, or a list of these")
    return [absolute(path, info) for path in given]


Paths = Annotated[Any, AfterValidator(absolute)]


class TextFiles(DataSource):
    """Pairs from UTF-8 text files, which gzip may have packed; of training pairs, large files have a cache."""

    train: Paths
    val: Paths
    test: Paths
    header: bool = False
    comment: str | None = None
    max_pairs: Count | None = None
    max_length: Count
    skip_invalid: bool = False
    cache_dir: str | None = None

    # For errors, the key that names the files of a split, and what to give:
    key: ClassVar[str] = "data.{split}"
    wanted: ClassVar[str] = "a file, data.{split}=FILE"

    @field_validator("comment")
    @classmethod
    def _check_comment(cls, comment: str | None) -> str | None:
        if comment == "":
            allowed = "the text that comments start with, or null: every line starts with it"
            raise UserError(f"data.comment='' must be {allowed}")
        return comment

    def files(self, split: Split) -> list[str]:
        """Return the files of a split, those of a pattern in alphabetical order."""
        given = getattr(self, split)
        if given is None:
            raise UserError(f"data.{split} is missing: give {self.wanted.format(split=split)}")
        return [file for path in (given if isinstance(given, list) else [given]) for file in expand(path, split)]

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split, in the order of its files and their lines."""
        files = self.files(split)
        self._skipped = 0
        with reading_progress(files) as wrap:
            found = self.read(split, wrap)
            yield from islice(found, self.max_pairs) if split == "train" else found

    @abstractmethod
    def read(self, split: Split, wrap: Wrap) -> Iterator[Pair]:
        """Yield the pairs of a split as `pairs` does; ``wrap`` is to be passed on to `lines`."""

    def lines(self, path: str, split: Split, wrap: Wrap) -> Iterator[tuple[str, str]]:
        """Yield the lines of a file that are neither header nor comment, each after its place, ``file:line``.

        Raises:
            UserError: If there is none.
        """
        empty, key = True, self.key.format(split=split)
        for number, line in read_lines(path, key, wrap):
            if number == 1 and not self.header and looks_like_header(line):
                warn_of_header(path, line)
            if not ((self.header and number == 1) or (self.comment is not None and line.startswith(self.comment))):
                empty = False
                yield f"{path}:{number}", line
        if empty:
            raise UserError(f"{path}: the file is empty; {key} needs at least one line")

    def skip(self, split: Split, problem: str) -> None:
        """Count a pair that is skipped because of a problem, or raise `UserError` if it must not be skipped."""
        if split != "train" or not self.skip_invalid:
            raise UserError(problem)
        self._skipped += 1

    def accepts(self, side: str, length: int, pair: Pair, split: Split) -> bool:
        """Return whether a text has from 1 to ``max_length`` tokens; see `DataSource.accepts`."""
        if 1 <= length <= self.max_length:
            return True
        limit = f"data.max_length={self.max_length} allows {self.max_length}" if length else "it needs at least one"
        self.skip(split, f"{pair.place}: the {self.describe(side)} has {length or 'no'} tokens; {limit}")
        return False

    def describe(self, side: str) -> str:
        """Return a side as errors name it."""
        return side


NAMES = {
    "form", "grapheme", "graphemes", "input", "ipa", "lemma", "output", "phoneme", "phonemes", "phones", "prediction",
    "pronunciation", "reference", "sentence", "source", "spelling", "src", "target", "text", "tgt", "transcription",
    "translation", "word", "words",
}  # fmt: skip
"""Words that name columns rather than being data."""


def looks_like_header(line: str) -> bool:
    r"""Return whether a line has several columns, all of which are words that name columns.

    Example:
        >>> [looks_like_header(line) for line in ("Word\tPronunciation", "word\tw ɜ d", "text")]
        [True, False, False]
    """
    columns = line.casefold().split(COLUMN)
    return len(columns) > 1 and NAMES.issuperset(column.strip() for column in columns)


@cache
def warn_of_header(path: str, line: str) -> None:
    """Log, once for each file, that its first line is read as a pair."""
    log.warning("%s:1: %r looks like a header and is read as a pair; data.header=true skips it", path, line)


def expand(path: str, split: Split) -> list[str]:
    """Return the files that a pattern matches, of which there must be some, in alphabetical order; else the path."""
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - of an absolute path
    if not found:
        raise UserError(f"data.{split}={path} matches no file")
    return found


def merge_references(pairs: Iterator[Pair]) -> list[Pair]:
    """Return the pairs with those of the same source as one, in the order of their first targets.

    Example:
        >>> merge_references(iter([Pair("a", "x"), Pair("b", "y"), Pair("a", "z"), Pair("a", "x")]))[0].references
        ['x', 'z']
    """
    merged: dict[str, Pair] = {}
    for pair in pairs:
        first = merged.setdefault(pair.source, pair)
        if pair.target not in first.references:
            merged[pair.source] = first._replace(alternatives=(*first.alternatives, pair.target))
    return list(merged.values())
