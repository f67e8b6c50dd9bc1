"""Tokenizers: the text of one side to tokens to ids, and back."""

import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import check_choice


def normalise(text: str) -> str:
    r"""Return the text in Unicode's normal form C, where a letter and its accent are one character if possible.

    Example:
        >>> len("e\u0301"), len(normalise("e\u0301"))
        (2, 1)
    """
    return unicodedata.normalize("NFC", text)


class Tokenizer(Protocol):
    """Encodes and decodes the text of one side. An implementation defines `name`, `tokenize` and `detokenize`.

    Args:
        vocabulary: The symbols of this side and their ids.

    Attributes:
        name: The config value that selects the class.
        vocabulary: The symbols of this side and their ids.
    """

    name: ClassVar[str]
    vocabulary: Vocabulary

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Split normalised text into tokens."""

    @abstractmethod
    def detokenize(self, tokens: Iterable[str]) -> str:
        """Join tokens to text."""

    def encode(self, text: str) -> list[int]:
        """Normalise and tokenise a text, and return the ids of its tokens, without begin and end."""
        return self.vocabulary.ids(self.tokenize(normalise(text)))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids that include neither begin, end nor padding."""
        return self.detokenize(self.vocabulary.tokens(ids))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint; `tokenizer_from_dict` builds an equal tokenizer from them."""
        return {"tokens": self.name, "symbols": self.vocabulary.symbols}


class CharacterTokenizer(Tokenizer):
    """Every character is a token.

    Example:
        >>> tokenizer = CharacterTokenizer(Vocabulary(["a", "b"]))
        >>> tokenizer.tokenize("ab a")
        ['a', 'b', ' ', 'a']
        >>> tokenizer.decode(tokenizer.encode("abba"))
        'abba'
    """

    name = "characters"

    def tokenize(self, text: str) -> list[str]:
        """Split normalised text into characters."""
        return list(text)

    def detokenize(self, tokens: Iterable[str]) -> str:
        """Concatenate the characters."""
        return "".join(tokens)


class SpaceTokenizer(Tokenizer):
    """Tokens are separated by one or more spaces; other whitespace belongs to a token.

    Example:
        >>> tokenizer = SpaceTokenizer(Vocabulary(["ɛ̃", "p"]))
        >>> tokenizer.encode("p  ɛ̃")
        [5, 4]
        >>> tokenizer.decode([5, 4])
        'p ɛ̃'
    """

    name = "spaces"

    def tokenize(self, text: str) -> list[str]:
        """Split normalised text at spaces."""
        return [token for token in text.split(" ") if token]

    def detokenize(self, tokens: Iterable[str]) -> str:
        """Join the tokens with spaces."""
        return " ".join(tokens)


TOKENIZERS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in (CharacterTokenizer, SpaceTokenizer)}
"""Registry of tokenizers: value of ``data.source_tokens`` and ``data.target_tokens`` to class."""


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer from what `Tokenizer.to_dict` returned.

    Raises:
        UserError: If there is no tokenizer of that name.
    """
    return TOKENIZERS[check_choice("tokens", values["tokens"], TOKENIZERS)](Vocabulary(values["symbols"]))
