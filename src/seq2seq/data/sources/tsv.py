"""Pairs from tab-separated files."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, Self

from pydantic import model_validator

from seq2seq.data.lines import Wrap
from seq2seq.data.sources.files import TextFiles, merge_references
from seq2seq.data.sources.source import SIDES, Pair, Split
from seq2seq.data.tokenizer import COLUMN
from seq2seq.errors import UserError
from seq2seq.settings import Count


class TSV(TextFiles):
    """One pair per line, in some of the columns that tabs separate, without quoting."""

    name: ClassVar[str] = "tsv"
    wanted: ClassVar[str] = "a tab-separated file, data.{split}=FILE"

    source_column: Count | list[Count]
    target_column: Count
    features_column: Count | list[Count] | None = None
    group_column: Count | None = None
    merge_references: bool = False

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if (self.features_column is None) is not (self.features_tokens is None):
            given = f"data.features_column={self.features_column} and data.features_tokens={self.features_tokens}"
            raise UserError(f"{given} must both be given, or neither")
        for part in self.parts:
            columns, given = self._numbers[part], f"data.{part}_column={getattr(self, f'{part}_column')}"
            if part != "target" and self.target_column in columns:
                raise UserError(f"data.target_column={self.target_column} must differ from {given}")
            if len(columns) != self.make_tokenizer(part).columns:
                allowed = "must be lists of the same length, or a column and its tokens"
                raise UserError(f"{given} and data.{part}_tokens={getattr(self, f'{part}_tokens')} {allowed}")
        return self

    @property
    def group_name(self) -> str | None:
        """What results are also reported by: the text of `group_column`."""
        return "group" if self.group_column else None

    def read(self, split: Split, wrap: Wrap) -> Iterator[Pair]:
        """Yield the pairs of a split."""
        pairs = (
            Pair(*texts, place)
            for path in self.files(split)
            for place, line in self.lines(path, split, wrap)
            if (texts := self._texts(line.split(COLUMN), place, split))
        )
        yield from merge_references(pairs) if self.merge_references and split != "train" else pairs

    def describe(self, side: str) -> str:
        """Return a side and its columns."""
        columns = self._numbers[side]
        return f"{side} (column{'s' * (len(columns) > 1)} {', '.join(map(str, columns))})"

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """The columns of each part, and of the group."""
        given = {part: getattr(self, f"{part}_column") for part in ("source", "target", "features", "group")}
        return {part: one if isinstance(one, list) else [one] for part, one in given.items() if one is not None}

    def _texts(self, columns: list[str], place: str, split: Split) -> tuple[str, str, str] | None:
        """Return the source with its features, the target and the group; None for a line that is skipped."""
        texts = {"group": ""}
        for part, numbers in self._numbers.items():
            if max(numbers) > len(columns):
                found = f"but the line has {len(columns)} column{'s' * (len(columns) != 1)}"
                given = f"data.{part}_column={getattr(self, f'{part}_column')}"
                raise UserError(f"{place}: {given}, {found}; columns are separated by tabs and counted from 1")
            chosen = [columns[number - 1] for number in numbers]
            if part in SIDES and not all(map(str.strip, chosen)):
                self.skip(split, f"{place}: the {self.describe(part)} is empty; it needs at least one token")
                return None
            texts[part] = COLUMN.join(chosen)
        source = f"{texts['source']}{COLUMN}{texts['features']}" if "features" in texts else texts["source"]
        return source, texts["target"], texts["group"]
