"""Symbols and their ids; the one place that knows the ids of the special symbols."""

from collections import Counter
from collections.abc import Iterable, Sequence

PAD, BOS, EOS, UNK = range(4)
"""Ids of padding, begin of sequence, end of sequence and an unknown symbol, in every vocabulary."""

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""How the special symbols are written where one must be shown; a text that holds such letters is not affected."""


class Vocabulary:
    """The symbols of one side, and their ids.

    Args:
        symbols: Without the special ones, in the order of their ids.

    Example:
        >>> vocabulary = Vocabulary.count([["b", "a"], ["a", "c"]], min_count=1)
        >>> vocabulary.symbols
        ['a', 'b', 'c']
        >>> vocabulary.ids(["a", "z"]) == [4, UNK]
        True
        >>> vocabulary.tokens([4, 3])
        ['a', '<unk>']
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self._ids = {symbol: number for number, symbol in enumerate(self.symbols, start=len(SPECIALS))}

    @classmethod
    def count(cls, sequences: Iterable[Sequence[str]], min_count: int) -> "Vocabulary":
        """Collect the symbols that occur at least ``min_count`` times, the most frequent first."""
        counts = Counter(token for sequence in sequences for token in sequence)
        kept = [(-number, symbol) for symbol, number in counts.items() if number >= min_count]
        return cls([symbol for _, symbol in sorted(kept)])

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.symbols)

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token, that of the unknown symbol where there is none."""
        return [self._ids.get(token, UNK) for token in tokens]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the symbol of each id."""
        offset = len(SPECIALS)
        return [SPECIALS[i] if i < offset else self.symbols[i - offset] for i in ids]
