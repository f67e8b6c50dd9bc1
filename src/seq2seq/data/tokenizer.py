"""Tokenizers: the text of one side to tokens to ids, and back."""

import inspect
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, create_model

from seq2seq.data.vocabulary import OpenVocabulary, Vocabulary
from seq2seq.errors import UserError, import_extra
from seq2seq.settings import Count, Settings, choose, read_settings

COLUMN = "\t"
"""Separates the columns of a text. In tokens, the second column's start with it, the third's with two of it, ..."""

Form = Literal["nfc", "nfkc", "nfd", "nfkd", "none"]
"""See `Normaliser`."""


class Normaliser(NamedTuple):
    r"""Brings texts into one spelling.

    Attributes:
        form: Unicode's normal form, ``nfc``, ``nfkc``, ``nfd`` or ``nfkd``; ``none`` changes nothing. The default is C,
            where a letter and its accent are one character if possible. In form D they are two, and a Korean syllable
            is two or three letters. The forms with K also replace characters such as ``ﬁ`` and ``ʰ``, for good.
        lower_case: Whether texts are put in lower case.

    Example:
        >>> [len(Normaliser(form)("e\u0301")) for form in ("nfc", "nfd")]
        [1, 2]
        >>> Normaliser("nfd").compose("e\u0301") == "\u00e9"
        True
    """

    form: str = "nfc"
    lower_case: bool = False

    def __call__(self, text: str) -> str:
        """Return the text, normalised."""
        if self.lower_case:
            text = text.lower()
        return text if self.form == "none" else unicodedata.normalize(self.form.upper(), text)  # pyright: ignore[reportArgumentType]

    def compose(self, text: str) -> str:
        """Return a normalised text as people see it: what form D decomposed is composed again."""
        return unicodedata.normalize("NFC", text) if self.form in ("nfd", "nfkd") else text


NFC = Normaliser()

Texts = Callable[[], Iterable[str]]
"""Reads texts from the beginning with each call."""


class Tokenizer(ABC):
    """Encodes and decodes the text of one side. An implementation defines `name`, `tokenize` and `detokenize`.

    Its keyword arguments are its options in a config, and must be plain values that it keeps as attributes.

    Attributes:
        name: The config value that selects the class.
        columns: Number of columns of a text; above 1, tabs separate them.
        vocabulary: The symbols of this side and their ids.
        normalise: Applied to each text before it is split.
    """

    name: ClassVar[str]
    columns = 1

    def __init__(self, vocabulary: Vocabulary, normaliser: Normaliser = NFC) -> None:
        self.vocabulary = vocabulary
        self.normalise = normaliser

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Split normalised text into tokens."""

    @abstractmethod
    def detokenize(self, tokens: Iterable[str]) -> str:
        """Join tokens to text."""

    def rebuilt(self, vocabulary: Vocabulary | None = None, normaliser: Normaliser | None = None) -> Self:
        """Return a tokenizer that splits like this one, with other symbols or another normalisation."""
        other = copy(self)
        other.vocabulary, other.normalise = vocabulary or self.vocabulary, normaliser or self.normalise
        return other

    def learned(self, texts: Texts) -> Self:  # noqa: ARG002 - most have nothing to learn
        """Return a tokenizer that has learned to split from normalised training texts."""
        return self

    def learned_tokens(self) -> list[str]:
        """Return what was learned, which belongs to the vocabulary however rare it is."""
        return []

    def tokens(self, text: str) -> list[str]:
        """Normalise a text and split it into tokens."""
        return self.tokenize(self.normalise(text))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's `tokens`, without begin and end."""
        return self.vocabulary.ids(self.tokens(text))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids that include neither begin, end nor padding."""
        return self.normalise.compose(self.detokenize(self.vocabulary.tokens(ids)))

    def spec(self) -> Any:  # noqa: ANN401 - a name, a mapping or a list
        """Return what the tokens are, as `build_tokenizer` takes it."""
        values = {key: getattr(self, key) for key in options_of(type(self)).model_fields}
        return values if len(values) > 1 else self.name

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint; `tokenizer_from_dict` builds an equal tokenizer from them."""
        form, lower = self.normalise
        return {"tokens": self.spec(), "symbols": self.vocabulary.symbols, "normalization": form, "lower_case": lower}


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


class GraphemeTokenizer(CharacterTokenizer):
    r"""What a reader takes for one character is a token, even if it is several: Unicode's extended grapheme clusters.

    Example:
        >>> GraphemeTokenizer(Vocabulary([])).tokenize("नमस्ते") == ["न", "म", "स्ते"]
        True
    """

    name = "graphemes"

    def __init__(self, vocabulary: Vocabulary, normaliser: Normaliser = NFC) -> None:
        super().__init__(vocabulary, normaliser)
        self._pattern = import_extra("regex", "text").compile(r"\X")

    def tokenize(self, text: str) -> list[str]:
        """Split normalised text into grapheme clusters."""
        return self._pattern.findall(text)


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
    separator = " "

    def tokenize(self, text: str) -> list[str]:
        """Split normalised text at the separators."""
        return [token for token in text.split(self.separator) if token]

    def detokenize(self, tokens: Iterable[str]) -> str:
        """Join the tokens with separators."""
        return self.separator.join(tokens)


class SplitTokenizer(SpaceTokenizer):
    """Tokens are separated by one or more separators, such as ``;``.

    Example:
        >>> SplitTokenizer(Vocabulary([]), separator=";").tokenize("N;ACC;PL")
        ['N', 'ACC', 'PL']
    """

    name = "split"

    def __init__(self, vocabulary: Vocabulary, normaliser: Normaliser = NFC, *, separator: str) -> None:
        super().__init__(vocabulary, normaliser)
        if not separator or COLUMN in separator:
            raise UserError(f"separator={separator!r} must be a text without tabs")
        self.separator = separator


UNKNOWN = "\ufffd"
"""What a `SubwordTokenizer` reads for a character that its training texts lack."""


class SubwordTokenizer(Tokenizer):
    """Frequent sequences of characters are tokens: byte-pair encoding (Sennrich et al. 2016), learned from the texts.

    No token contains a space, except at its start, where it is shown as ``▁``. Punctuation stands alone.

    Args:
        size: Number of tokens to learn, single characters included.
        model: What was learned, as the JSON of the library ``tokenizers``; empty if nothing was: it is needed to split.
    """

    name = "subwords"

    def __init__(
        self, vocabulary: Vocabulary, normaliser: Normaliser = NFC, *, size: Count = 8000, model: str = ""
    ) -> None:
        super().__init__(vocabulary, normaliser)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads do not survive the fork of a loader's worker
        library = import_extra("tokenizers", "text")
        self.size, self.model = size, model
        try:
            self._tokenizer: Any = library.Tokenizer.from_str(model) if model else None
        except Exception as error:  # the library raises nothing more specific
            raise UserError("model is not what the library tokenizers has written") from error

    def learned(self, texts: Texts) -> "SubwordTokenizer":
        """Return a tokenizer with the tokens of normalised training texts, unless this one has some."""
        if self.model:
            return self
        library = import_extra("tokenizers", "text")
        splitters = library.pre_tokenizers
        tokenizer = library.Tokenizer(library.models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = splitters.Sequence([splitters.Metaspace(), splitters.Punctuation("isolated")])
        tokenizer.decoder = library.decoders.Metaspace()
        options = {"vocab_size": self.size, "special_tokens": [UNKNOWN], "max_token_length": 32}
        tokenizer.train_from_iterator(texts(), library.trainers.BpeTrainer(**options, show_progress=False))
        return SubwordTokenizer(self.vocabulary, self.normalise, size=self.size, model=tokenizer.to_str())

    def learned_tokens(self) -> list[str]:
        """Return all subwords; single letters of the training texts may occur there in longer ones only."""
        return sorted(self._tokenizer.get_vocab().keys() - {UNKNOWN})

    def tokenize(self, text: str) -> list[str]:
        """Split normalised text into subwords."""
        return self._tokenizer.encode(text, add_special_tokens=False).tokens

    def detokenize(self, tokens: Iterable[str]) -> str:
        """Join subwords to text."""
        return self._tokenizer.decoder.decode(list(tokens))


def check_columns(text: str, columns: int, place: str = "") -> None:
    """Raise a `UserError` if a text, which may stand at a place, has not so many columns; for one, tabs are text."""
    found = text.count(COLUMN) + 1
    if columns > 1 and found != columns:
        raise UserError(
            f"{place or repr(text)}: the text has {found} columns; the model reads {columns}, separated by tabs"
        )


class ColumnTokenizer(Tokenizer):
    r"""Texts of several columns, separated by tabs, each with its own tokenizer, whose vocabulary is not used.

    Example:
        >>> tokenizer = build_tokenizer(["characters", {"name": "split", "separator": ";"}])
        >>> tokenizer.tokenize("ház\tN;PL")
        ['h', 'á', 'z', '\tN', '\tPL']
        >>> tokenizer.detokenize(["h", "á", "z", "\tN", "\tPL"]) == "ház\tN;PL"
        True
    """

    name = "columns"

    def __init__(self, vocabulary: Vocabulary, normaliser: Normaliser, parts: Sequence[Tokenizer]) -> None:
        super().__init__(vocabulary, normaliser)
        self.parts = list(parts)
        self.columns = len(self.parts)

    def learned(self, texts: Texts) -> "ColumnTokenizer":
        """Return a tokenizer whose columns have learned."""
        parts = [
            part.learned(lambda number=number: (text.split(COLUMN)[number] for text in texts()))
            for number, part in enumerate(self.parts)
        ]
        return ColumnTokenizer(self.vocabulary, self.normalise, parts)

    def learned_tokens(self) -> list[str]:
        """Return what the tokenizers of the columns have learned."""
        return [COLUMN * number + token for number, part in enumerate(self.parts) for token in part.learned_tokens()]

    def tokenize(self, text: str) -> list[str]:
        """Split each column into tokens."""
        check_columns(text, self.columns)
        return [
            COLUMN * number + token
            for number, (part, column) in enumerate(zip(self.parts, text.split(COLUMN), strict=True))
            for token in part.tokenize(column)
        ]

    def detokenize(self, tokens: Iterable[str]) -> str:
        """Join the tokens of each column."""
        columns = [""] * self.columns
        for number, own in groupby(tokens, key=lambda token: len(token) - len(token.lstrip(COLUMN))):
            columns[number] = self.parts[number].detokenize(token[number:] for token in own)
        return COLUMN.join(columns)

    def spec(self) -> list[Any]:
        """Return what the tokens of each column are."""
        return [part.spec() for part in self.parts]


KINDS = (CharacterTokenizer, GraphemeTokenizer, SpaceTokenizer, SplitTokenizer, SubwordTokenizer)
TOKENIZERS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in KINDS}
"""Registry of tokenizers: value of ``data.source_tokens`` and ``data.target_tokens`` to class."""


def options_of(kind: type[Tokenizer]) -> type[Settings]:
    """Return the name and the options of a tokenizer, which are the keyword arguments of its class, as a section."""
    spec = inspect.getfullargspec(kind)
    defaults = spec.kwonlydefaults or {}
    options: Any = {name: (spec.annotations.get(name, Any), defaults.get(name, ...)) for name in spec.kwonlyargs}
    return create_model("Options", __base__=Settings, __module__=kind.__module__, name=(str, ...), **options)


def build_tokenizer(
    spec: object, normaliser: Normaliser = NFC, symbols: Sequence[str] = (), key: str = "tokens"
) -> Tokenizer:
    """Build a tokenizer for normalised texts with these symbols, or raise a `UserError` if that is not possible.

    Its ``spec``, the setting ``key``, is a name; a mapping with a ``name`` and options; or a list, one for each column.
    """
    vocabulary = Vocabulary(symbols)
    if isinstance(spec, list):
        parts = [build_tokenizer(one, key=f"{key}[{number}]") for number, one in enumerate(spec)]
        if len(parts) < 2:
            raise UserError(f"{key}={spec} must be a name, or a list with one entry for each of several columns")
        return ColumnTokenizer(vocabulary, normaliser, parts)
    values = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    kind = choose(key, values.get("name"), TOKENIZERS)
    options = read_settings(options_of(kind), values, key).model_dump(exclude={"name"})
    try:
        return kind(vocabulary, normaliser, **options)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


class TokenizerValues(Settings):
    """What `Tokenizer.to_dict` returns; the normalisation of an older one is form C."""

    tokens: Any
    symbols: Annotated[list[str], Field(min_length=1)]
    normalization: Form = "nfc"
    lower_case: bool = False


class Tokenizers(NamedTuple):
    r"""The tokenizers of a model. A text that it reads has the columns of the source, and then those of its features.

    Attributes:
        features: None if the model reads no features.

    Example:
        >>> features = build_tokenizer("spaces", symbols=["N", "PL"])
        >>> tokenizers = Tokenizers(build_tokenizer("characters", symbols=["a", "b"]), features, features)
        >>> tokenizers.tokenize("ab\tPL N")
        (['a', 'b'], ['PL', 'N'])
        >>> tokenizers.encode("ab\t")
        ([4, 5], [])
    """

    source: Tokenizer
    target: Tokenizer
    features: Tokenizer | None = None

    @property
    def columns(self) -> int:
        """Number of columns of a text; above 1, tabs separate them."""
        return self.source.columns + (self.features.columns if self.features else 0)

    def split(self, text: str) -> tuple[str, str]:
        """Return the source and the features of a text; raise a `UserError` if it has another number of columns."""
        if self.features is None:
            return text, ""
        check_columns(text, self.columns)
        columns = text.split(COLUMN)
        return COLUMN.join(columns[: self.source.columns]), COLUMN.join(columns[self.source.columns :])

    def normalise(self, text: str) -> str:
        """Return a text, normalised."""
        source, features = self.split(text)
        source = self.source.normalise(source)
        return source if self.features is None else f"{source}{COLUMN}{self.features.normalise(features)}"

    def tokenize(self, text: str) -> tuple[list[str], list[str]]:
        """Return the tokens of a normalised text: of its source, and its features."""
        source, features = self.split(text)
        return self.source.tokenize(source), self.features.tokenize(features) if self.features else []

    def tokens(self, text: str) -> tuple[list[str], list[str]]:
        """Normalise a text, and return the tokens of its source, and its features."""
        return self.tokenize(self.normalise(text))

    def shown(self, text: str) -> tuple[list[str], list[str]]:
        """Return a text's `tokens` as people read them, without the marks of their columns."""
        source, features = ([token.lstrip(COLUMN) or token for token in part] for part in self.tokens(text))
        return source, features

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text's `tokens`."""
        source, features = self.tokens(text)
        return self.source.vocabulary.ids(source), self.features.vocabulary.ids(features) if self.features else []

    def arguments(self) -> dict[str, dict[str, Any]]:
        """Return `to_dicts` under the names that `seq2seq.training.module.Seq2SeqModule` has for them."""
        return {f"{part}_tokenizer": one for part, one in self.to_dicts().items()}

    def to_dicts(self) -> dict[str, dict[str, Any]]:
        """Return what `Tokenizer.to_dict` returns for each part that there is."""
        return {part: one.to_dict() for part, one in self._asdict().items() if one}

    @classmethod
    def from_dicts(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dicts` took apart; see `tokenizer_from_dict` for errors."""
        return cls(**{part: tokenizer_from_dict(one) for part, one in values.items() if one is not None})

    def with_open_target(self) -> Self:
        """Return them with a target that gives no two texts equal ids: open, and of characters instead of subwords."""
        target, vocabulary = self.target, OpenVocabulary(self.target.vocabulary.symbols)
        if isinstance(target, SubwordTokenizer):  # which joins the characters that its training texts lack
            return self._replace(target=CharacterTokenizer(vocabulary, target.normalise))
        return self._replace(target=target.rebuilt(vocabulary=vocabulary))

    def sizes(self) -> dict[str, int]:
        """Return the number of symbols of each part that there is."""
        return {part: len(one.vocabulary) for part, one in self._asdict().items() if one}


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer from what `Tokenizer.to_dict` returned, or raise a `UserError` if a value is not allowed."""
    found = read_settings(TokenizerValues, values, "tokenizer")
    tokenizer = build_tokenizer(found.tokens, Normaliser(found.normalization, found.lower_case), found.symbols)
    for part in getattr(tokenizer, "parts", [tokenizer]):
        if isinstance(part, SubwordTokenizer) and not part.model:
            raise UserError(f"tokenizer.tokens={found.tokens} has no model, which is what was learned")
    return tokenizer
