"""Pairs from tab-separated files."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, Self

from pydantic import model_validator

from seq2seq.data.lines import Wrap
from seq2seq.data.sources.files import TextFiles, merge_references
from seq2seq.data.sources.source import Pair, Split
from seq2seq.data.tokenizer import COLUMN
from seq2seq.errors import UserError
from seq2seq.settings import Count


class TSV(TextFiles):
    """One pair per line, in some of the columns that tabs separate, without quoting."""

    name: ClassVar[str] = "tsv"
    wanted: ClassVar[str] = "a tab-separated file, data.{split}=FILE"

    source_column: Count | list[Count]
    target_column: Count
    merge_references: bool = False

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        columns, given = self._numbers["source"], f"data.source_column={self.source_column}"
        if self.target_column in columns:
            raise UserError(f"data.target_column={self.target_column} must differ from {given}")
        if len(columns) != self.make_tokenizer("source").columns:
            allowed = "must be lists of the same length, or a column and its tokens"
            raise UserError(f"{given} and data.source_tokens={self.source_tokens} {allowed}")
        return self

    def read(self, split: Split, wrap: Wrap) -> Iterator[Pair]:
        """Yield the pairs of a split."""
        pairs = (
            Pair(*texts, place=place)
            for path in self.files(split)
            for place, line in self.lines(path, split, wrap)
            if (texts := self._source_and_target(line.split(COLUMN), place, split))
        )
        yield from merge_references(pairs) if self.merge_references and split != "train" else pairs

    def describe(self, side: str) -> str:
        """Return a side and its columns."""
        columns = self._numbers[side]
        return f"{side} (column{'s' * (len(columns) > 1)} {', '.join(map(str, columns))})"

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        given = {"source": self.source_column, "target": self.target_column}
        return {side: numbers if isinstance(numbers, list) else [numbers] for side, numbers in given.items()}

    def _source_and_target(self, columns: list[str], place: str, split: Split) -> list[str] | None:
        """Return source and target; None for a line that is skipped."""
        texts = []
        for side, numbers in self._numbers.items():
            if max(numbers) > len(columns):
                found = f"but the line has {len(columns)} column{'s' * (len(columns) != 1)}"
                given = f"data.{side}_column={getattr(self, f'{side}_column')}"
                raise UserError(f"{place}: {given}, {found}; columns are separated by tabs and counted from 1")
            chosen = [columns[number - 1] for number in numbers]
            if not all(map(str.strip, chosen)):
                self.skip(split, f"{place}: the {self.describe(side)} is empty; it needs at least one token")
                return None
            texts.append(COLUMN.join(chosen))
        return texts
