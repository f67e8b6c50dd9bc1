"""Letters and the same letters reversed, which a model learns in seconds."""

import random
import string
from collections.abc import Iterator
from typing import ClassVar, Self

from pydantic import model_validator

from seq2seq.data.sources.source import DataSource, Pair, Split
from seq2seq.errors import UserError
from seq2seq.settings import Count, Natural


class Reverse(DataSource):
    """``k c r a`` to ``a r c k``. No source occurs in two splits."""

    name: ClassVar[str] = "reverse"

    train_size: Count
    val_size: Count
    test_size: Count
    min_letters: Count
    max_letters: int
    seed: Natural

    @property
    def about(self) -> str:
        """What is reversed."""
        return "Reads letters, separated by spaces; writes them reversed."

    @model_validator(mode="after")
    def _check_letters(self) -> Self:
        if not self.min_letters <= self.max_letters <= 1000:
            allowed = f"a whole number of at least {self.min_letters} and at most 1000"
            raise UserError(f"data.max_letters={self.max_letters} must be {allowed}")
        wanted = self.train_size + self.val_size + self.test_size
        available = sum(26**letters for letters in range(self.min_letters, self.max_letters + 1))
        if wanted * 2 > available:
            problem = f"data.max_letters={self.max_letters} gives {available} sequences, which is too few for {wanted}"
            raise UserError(f"{problem} different pairs; use longer ones or less than half as many pairs")
        return self

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split."""
        generator = random.Random(self.seed)
        seen: dict[str, None] = {}  # an ordered set
        total = self.train_size + self.val_size + self.test_size
        while len(seen) < total:
            letters = generator.choices(string.ascii_lowercase, k=generator.randint(self.min_letters, self.max_letters))
            seen[" ".join(letters)] = None
        start = {"train": 0, "val": self.train_size, "test": self.train_size + self.val_size}[split]
        return (Pair(source, source[::-1]) for source in list(seen)[start : start + getattr(self, f"{split}_size")])
