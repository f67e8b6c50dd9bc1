"""Pairs from tab-separated files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seq2seq.data.lines import read_lines
from seq2seq.data.sources.source import DataSource, Pair, Split
from seq2seq.errors import UserError
from seq2seq.schema import Count


@dataclass(kw_only=True)
class TSV(DataSource):
    """One pair per line, in two of the columns that tabs separate; UTF-8, without header and quoting.

    Attributes:
        train: Training file.
        val: Validation file.
        test: Test file; may be the same as ``val``.
        source_column: Column of the source, counted from 1.
        target_column: Column of the target, counted from 1.
        max_length: Maximum number of tokens of a source and of a target.
    """

    name: ClassVar[str] = "tsv"

    train: str | None
    val: str | None
    test: str | None
    source_column: Count
    target_column: Count
    max_length: Count

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source_column == self.target_column:
            raise UserError(
                f"data.target_column={self.target_column} must differ from data.source_column={self.source_column}"
            )
        for key in ("train", "val", "test"):
            path = getattr(self, key)
            if path is not None:  # absolute, so that a checkpoint can be evaluated from any working directory
                setattr(self, key, str(Path(str(path)).expanduser().absolute()))

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split's file, line by line."""
        path = getattr(self, split)
        if path is None:
            raise UserError(f"data.{split} is missing: give a tab-separated file, data.{split}=FILE")
        number = 0
        for number, line in read_lines(path, f"data.{split}"):
            columns, place = line.split("\t"), f"{path}:{number}"
            yield Pair(
                self._text(columns, "source", place),
                self._text(columns, "target", place),
                place=place,
            )
        if number == 0:
            raise UserError(f"{path}: the file is empty; data.{split} needs at least one line")

    def check_length(self, side: str, length: int, place: str) -> None:
        """Raise if a text has more than ``max_length`` tokens."""
        if length > self.max_length:
            raise UserError(
                f"{place}: the {side} (column {self._column(side)}) has {length} tokens; "
                f"data.max_length={self.max_length} allows {self.max_length}"
            )

    def _column(self, side: str) -> int:
        return self.source_column if side == "source" else self.target_column

    def _text(self, columns: list[str], side: str, place: str) -> str:
        number = self._column(side)
        if number > len(columns):
            raise UserError(
                f"{place}: data.{side}_column={number}, but the line has {len(columns)} column"
                f"{'s' * (len(columns) != 1)}; columns are separated by tabs and counted from 1"
            )
        text = columns[number - 1]
        if not text.strip():
            raise UserError(f"{place}: the {side} (column {number}) is empty; it needs at least one token")
        return text
