"""Pairs from tab-separated files of the user's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seq2seq.data.lines import read_lines
from seq2seq.data.sources.source import Pair, Split, Task
from seq2seq.data.tokenizer import normalise, split
from seq2seq.errors import UserError, check_count


@dataclass(kw_only=True)
class TSV(Task):
    """A pair a line, in two of the columns that tabs separate. UTF-8, without a header or quoting.

    Attributes:
        train: File to train on.
        val: File to validate on.
        test: File to test on; may be the same as ``val``.
        source_column: Column of the source, counted from 1.
        target_column: Column of the target, counted from 1.
        max_length: Longest source and longest target that is accepted, in tokens.
    """

    train: str | None
    val: str | None
    test: str | None
    source_column: int
    target_column: int
    max_length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("data.source_column", self.source_column)
        check_count("data.target_column", self.target_column)
        check_count("data.max_length", self.max_length)
        if self.source_column == self.target_column:
            raise UserError(
                f"data.target_column={self.target_column} must differ from data.source_column={self.source_column}"
            )
        for key in ("train", "val", "test"):
            path = getattr(self, key)
            if path is not None:  # absolute, so that a checkpoint finds its task from any folder
                setattr(self, key, str(Path(str(path)).expanduser().absolute()))

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split's file, line by line."""
        path = getattr(self, split)
        if path is None:
            raise UserError(f"data.{split} is missing: give a tab-separated file, data.{split}=FILE")
        number = 0
        for number, line in read_lines(path, f"data.{split}"):
            yield self._pair(line, f"{path}:{number}")
        if number == 0:
            raise UserError(f"{path}: the file is empty; data.{split} needs at least one line")

    def _pair(self, line: str, place: str) -> Pair:
        columns = normalise(line).split("\t")
        return Pair(
            self._column(columns, "source", self.source_column, self.source_tokens, place),
            self._column(columns, "target", self.target_column, self.target_tokens, place),
        )

    def _column(self, columns: list[str], side: str, number: int, tokens: str, place: str) -> str:
        if number > len(columns):
            raise UserError(
                f"{place}: data.{side}_column={number}, but the line has {len(columns)} column"
                f"{'s' * (len(columns) != 1)}; columns are separated by tabs and counted from 1"
            )
        text = columns[number - 1]
        length = len(split(text, tokens))
        if length == 0 or not text.strip():
            raise UserError(f"{place}: the {side} (column {number}) is empty; it needs at least one token")
        if length > self.max_length:
            raise UserError(
                f"{place}: the {side} (column {number}) has {length} tokens; "
                f"data.max_length={self.max_length} allows {self.max_length}"
            )
        return text
