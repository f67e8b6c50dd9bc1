"""Symbols and their ids; the only module that knows the ids of the special symbols."""

from collections.abc import Iterable, Mapping, Sequence

PAD, BOS, EOS, UNK = range(4)
"""Ids of padding, begin of sequence, end of sequence and an unknown symbol, in every vocabulary."""

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""How the special symbols are shown. A text with these letters is not affected."""


class Vocabulary:
    """The symbols of one side and their ids.

    Args:
        symbols: In the order of their ids, without the special symbols.

    Example:
        >>> vocabulary = Vocabulary.from_counts({"b": 1, "a": 2, "c": 1}, min_count=1)
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
    def from_counts(cls, counts: Mapping[str, int], min_count: int, max_symbols: int | None = None) -> "Vocabulary":
        """Return the symbols that occur at least ``min_count`` times, the most frequent first, up to a number."""
        kept = [(-count, symbol) for symbol, count in counts.items() if count >= min_count]
        return cls([symbol for _, symbol in sorted(kept)[:max_symbols]])

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.symbols)

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token; a token that is not in the vocabulary gets the id of the unknown symbol."""
        return [self._ids.get(token, UNK) for token in tokens]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the symbol of each id."""
        offset = len(SPECIALS)
        return [SPECIALS[i] if i < offset else self.symbols[i - offset] for i in ids]


class OpenVocabulary(Vocabulary):
    """Gives each symbol that it meets an id of its own, so that no two texts become equal.

    Example:
        >>> vocabulary = OpenVocabulary([])
        >>> vocabulary.ids(["b", "a", "b"])
        [4, 5, 4]
        >>> vocabulary.tokens([5])
        ['a']
    """

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token, new ones included."""
        found = list(tokens)
        for token in found:
            if token not in self._ids:
                self._ids[token] = len(self)
                self.symbols.append(token)
        return super().ids(found)
