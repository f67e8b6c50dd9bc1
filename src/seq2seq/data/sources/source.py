"""The base class of data sources."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import model_validator

from seq2seq.data.tokenizer import Form, Normaliser, Tokenizer, build_tokenizer
from seq2seq.errors import UserError
from seq2seq.settings import Count, Natural, Settings

Split = Literal["train", "val", "test"]

SIDES = ("source", "target")


class Pair(NamedTuple):
    """A source text and its target. Tabs separate the columns of the source and, after them, those of its features.

    Attributes:
        group: What results are also reported by, for example a locale; empty if nothing.
        place: Where the pair stands, ``file:line``, for errors; empty if in no file.
        alternatives: Further targets that count as right in validation and test.
    """

    source: str
    target: str
    group: str = ""
    place: str = ""
    alternatives: tuple[str, ...] = ()

    @property
    def references(self) -> list[str]:
        """All texts that count as right."""
        return [self.target, *self.alternatives]


class DataSource(Settings, ABC):
    """Yields the pairs of each split, and holds the settings for tokenising and batching them.

    The fields are the keys of ``data`` in a config, which ``docs/configuration.md`` explains; those with a default may
    be left out. A subclass adds its own.

    Attributes:
        name: The value of ``data.task`` that selects the class.
    """

    name: ClassVar[str]

    source_tokens: Any
    target_tokens: Any
    features_tokens: Any = None
    normalization: Form | dict[str, Form] = "nfc"
    lower_case: bool = False
    shared_vocabulary: bool = False
    min_count: Count
    max_symbols: Count | None = None
    batch_size: Count
    batch_tokens: Count | None = None
    max_epochs: Count
    num_workers: Natural

    _skipped: int = 0

    @property
    def group_name(self) -> str | None:
        """What `Pair.group` holds; None if nothing."""
        return None

    @property
    def about(self) -> str:
        """What the texts are, in a sentence, if the source makes them up; empty if they are the user's."""
        return ""

    @property
    def parts(self) -> list[str]:
        """What is tokenised: ``source`` and ``target``, and ``features`` if there are any."""
        return [*SIDES, "features"] if self.features_tokens is not None else [*SIDES]

    @property
    def skipped(self) -> int:
        """Number of training pairs that the last pass has skipped."""
        return self._skipped

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if isinstance(self.normalization, dict) and self.normalization.keys() != set(SIDES):
            raise UserError(f"data.normalization={self.normalization} must have the keys {' and '.join(SIDES)}")
        _, target, *_ = map(self.make_tokenizer, self.parts)
        if self.shared_vocabulary and self.source_tokens != self.target_tokens:
            found = f"data.source_tokens={self.source_tokens} and data.target_tokens={self.target_tokens}"
            raise UserError(f"data.shared_vocabulary=true needs equal tokens on both sides, and not {found}")
        if target.columns > 1:
            raise UserError(f"data.target_tokens={self.target_tokens} must not be a list: a target has one column")
        return self

    def make_tokenizer(self, part: str) -> Tokenizer:
        """Return the tokenizer of one of the `parts`, without symbols; see `build_tokenizer`."""
        normaliser = Normaliser()
        if part in SIDES:
            form = self.normalization[part] if isinstance(self.normalization, dict) else self.normalization
            normaliser = Normaliser(form, self.lower_case)
        return build_tokenizer(getattr(self, f"{part}_tokens"), normaliser, key=f"data.{part}_tokens")

    def to_dict(self) -> dict[str, Any]:
        """Return the section ``data`` of a config; `build_source` builds an equal source from it."""
        return {"task": self.name} | self.model_dump()

    def files(self, split: Split) -> list[str]:  # noqa: ARG002 - by default, there are none
        """Return the files that a split is read from; empty if it is made up."""
        return []

    @abstractmethod
    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split, the same ones in the same order every time.

        Raises:
            UserError: If a file cannot be read or a line is not valid.
        """

    def accepts(self, side: str, length: int, pair: Pair, split: Split) -> bool:  # noqa: ARG002 - in a file, it may
        """Return whether a pair of a split is used, given the number of tokens of its ``source`` or ``target``.

        Raises:
            UserError: If the text has no tokens or too many, and the pair must not be skipped.
        """
        if not length:
            raise UserError(f"{pair.place or tuple(pair[:2])}: the {side} has no tokens; it needs at least one")
        return True
