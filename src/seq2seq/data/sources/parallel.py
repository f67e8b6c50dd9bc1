"""Pairs from files whose lines belong together."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import ClassVar, Self

from pydantic import model_validator

from seq2seq.data.lines import Wrap
from seq2seq.data.sources.files import TextFiles, expand
from seq2seq.data.sources.source import Pair, Split
from seq2seq.errors import UserError


class Parallel(TextFiles):
    """Line N of one file is the source, and line N of another its target.

    Each split is a list of two: the file of the sources and that of the targets, or a pattern for each. In validation
    and test, further files hold further references.
    """

    name: ClassVar[str] = "parallel"
    wanted: ClassVar[str] = "two files, data.{split}=[SOURCES,TARGETS]"

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        for split in ("train", "val", "test"):
            given = getattr(self, split)
            valid = isinstance(given, list) and (len(given) == 2 or (len(given) > 2 and split != "train"))
            if given is not None and not valid:
                raise UserError(f"data.{split}={given} must be a list: {self.wanted.format(split=split)}")
        return self

    def read(self, split: Split, wrap: Wrap) -> Iterator[Pair]:
        """Yield the pairs of a split."""
        patterns = getattr(self, split)
        sides = [expand(pattern, split) for pattern in patterns]
        if len(set(map(len, sides))) > 1:
            counts = " and ".join(f"{pattern} {len(files)}" for pattern, files in zip(patterns, sides, strict=True))
            raise UserError(f"data.{split} must name as many files for each side, and not: {counts}")
        for paths in zip(*sides, strict=True):
            yield from self._read_aligned(paths, split, wrap)

    def _read_aligned(self, paths: tuple[str, ...], split: Split, wrap: Wrap) -> Iterator[Pair]:
        counts = [0] * len(paths)
        for lines in zip_longest(*(self.lines(path, split, wrap) for path in paths)):
            counts = [count + (line is not None) for count, line in zip(counts, lines, strict=True)]
            if len(set(counts)) > 1:
                continue  # to the end, to tell how many lines there are
            if empty := [place for place, text in lines if not text.strip()]:
                self.skip(split, f"{empty[0]}: the line is empty; it needs at least one token")
                continue
            source, target, *alternatives = (text for _, text in lines)
            yield Pair(source, target, place=lines[0][0], alternatives=tuple(alternatives))
        if len(set(counts)) > 1:
            found = " and ".join(f"{path} has {count}" for path, count in zip(paths, counts, strict=True))
            raise UserError(f"data.{split}: aligned files need as many lines as each other, but {found}")
