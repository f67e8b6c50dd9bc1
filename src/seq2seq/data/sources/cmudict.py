"""Words and their pronunciations from a file of the CMU Pronouncing Dictionary, or one in its format."""

import random
import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from seq2seq.data.lines import Wrap
from seq2seq.data.sources.files import TextFiles, absolute, merge_references
from seq2seq.data.sources.source import Pair, Split
from seq2seq.errors import UserError
from seq2seq.settings import Fraction, Natural


class CMUdict(TextFiles):
    """``abacus`` to ``AE B AH K AH S``. All pronunciations of a word are in the same split.

    A line holds a word, spaces, and phonemes. Text after ``#`` and lines that start with ``;;;`` are comments.
    """

    name: ClassVar[str] = "cmudict"
    key: ClassVar[str] = "data.file"

    train: None = None
    val: None = None
    test: None = None
    file: Annotated[str | None, AfterValidator(absolute)]
    val_share: Fraction
    test_share: Fraction
    stress: bool
    seed: Natural

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise UserError(f"data.test_share={self.test_share} and data.val_share={self.val_share} leave no pairs")
        return self

    def files(self, split: Split) -> list[str]:  # noqa: ARG002 - one file for all splits
        """Return the dictionary."""
        if self.file is None:
            raise UserError("data.file is missing: give a CMUdict file, data.file=PATH")
        return [self.file]

    def read(self, split: Split, wrap: Wrap) -> Iterator[Pair]:
        """Yield the pairs of a split: in training one for each pronunciation, elsewhere one for each word."""
        entries = list(self._entries(split, wrap))
        words = sorted({pair.source for pair in entries})
        random.Random(self.seed).shuffle(words)
        val, test = (round(len(words) * share) for share in (self.val_share, self.test_share))
        kept = set({"val": words[:val], "test": words[val : val + test], "train": words[val + test :]}[split])
        pairs = (pair for pair in entries if pair.source in kept)
        yield from pairs if split == "train" else merge_references(pairs)

    def _entries(self, split: Split, wrap: Wrap) -> Iterator[Pair]:
        """Yield all pronunciations, each once."""
        seen = set()
        for place, line in self.lines(self.files(split)[0], split, wrap):
            if line.startswith(";;;") or not line.strip():
                continue
            word, *phonemes = line.partition("#")[0].split()
            if not phonemes:
                raise UserError(f"{place}: the line has a word and no phonemes; it needs both, separated by spaces")
            word = re.sub(r"\(\d+\)$", "", word).lower()  # a number marks a second or further pronunciation
            text = " ".join(phonemes if self.stress else (phoneme.rstrip("012") for phoneme in phonemes))
            if (word, text) not in seen:
                seen.add((word, text))
                yield Pair(word, text, place=place)
