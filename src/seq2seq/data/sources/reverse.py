"""Letters and the same letters reversed: a task that is learnt in seconds."""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

from seq2seq.data.sources.source import Pair, Split, Task
from seq2seq.errors import UserError, check_count


@dataclass(kw_only=True)
class Reverse(Task):
    """``k c r a`` to ``a r c k``; no source stands in two splits.

    Attributes:
        train_size: Pairs to train on.
        val_size: Pairs to validate on.
        test_size: Pairs to test on.
        min_letters: Shortest sequence.
        max_letters: Longest sequence.
        seed: Of the sequences; another seed is another data set.
    """

    train_size: int
    val_size: int
    test_size: int
    min_letters: int
    max_letters: int
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("train_size", "val_size", "test_size", "min_letters"):
            check_count(f"data.{key}", getattr(self, key))
        check_count("data.max_letters", self.max_letters, minimum=self.min_letters, maximum=1000)
        check_count("data.seed", self.seed, minimum=0)
        wanted = self.train_size + self.val_size + self.test_size
        available = sum(26**letters for letters in range(self.min_letters, self.max_letters + 1))
        if wanted * 2 > available:
            raise UserError(
                f"data.max_letters={self.max_letters} gives {available} sequences, which is too few for {wanted} "
                "different pairs; use longer ones or less than half as many pairs"
            )

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split."""
        generator = random.Random(self.seed)
        seen: dict[str, None] = {}  # a set that keeps the order
        total = self.train_size + self.val_size + self.test_size
        while len(seen) < total:
            letters = generator.choices(string.ascii_lowercase, k=generator.randint(self.min_letters, self.max_letters))
            seen[" ".join(letters)] = None
        sources = list(seen)
        ends = {
            "train": (0, self.train_size),
            "val": (self.train_size, -self.test_size),
            "test": (-self.test_size, None),
        }
        start, end = ends[split]
        return (Pair(source, source[::-1]) for source in sources[start:end])
