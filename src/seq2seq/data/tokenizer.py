"""One side's text to ids and back: normalisation, tokenisation and vocabulary."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import check_choice

TOKENS = ("characters", "spaces")
"""How text is cut into tokens: every character is one, or it is split at spaces."""


def normalise(text: str) -> str:
    r"""Return the text in Unicode's normal form C, in which a letter and its accent are one character if they can be.

    Example:
        >>> len("e\u0301"), len(normalise("e\u0301"))
        (2, 1)
    """
    return unicodedata.normalize("NFC", text)


def split(text: str, tokens: str) -> list[str]:
    """Cut normalised text into tokens."""
    return list(text) if tokens == "characters" else [token for token in text.split(" ") if token]


class Codec:
    """Encodes and decodes the text of one side.

    Args:
        tokens: ``characters`` or ``spaces``.
        vocabulary: Of this side.

    Example:
        >>> codec = Codec("spaces", Vocabulary(["ɛ̃", "p"]))
        >>> codec.encode("p  ɛ̃")
        [5, 4]
        >>> codec.decode([5, 4])
        'p ɛ̃'
    """

    def __init__(self, tokens: str, vocabulary: Vocabulary) -> None:
        self.token_kind = check_choice("tokens", tokens, TOKENS)
        self.vocabulary = vocabulary

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without begin or end."""
        return self.vocabulary.ids(self.split(text))

    def split(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return split(normalise(text), self.token_kind)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids that hold neither begin, end nor padding."""
        return ("" if self.token_kind == "characters" else " ").join(self.vocabulary.tokens(ids))

    def to_plain(self) -> dict[str, Any]:
        """Return strings and lists from which `from_plain` makes an equal codec; this is what a checkpoint holds."""
        return {"tokens": self.token_kind, "symbols": self.vocabulary.symbols}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Codec":
        """Make a codec from what `to_plain` returned."""
        return cls(plain["tokens"], Vocabulary(plain["symbols"]))
