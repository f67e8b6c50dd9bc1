"""The base class of data sources."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from seq2seq.data.tokenizer import TOKENIZERS
from seq2seq.errors import check_choice
from seq2seq.schema import Count, Natural, check

Split = Literal["train", "val", "test"]


class Pair(NamedTuple):
    """A source text and its target.

    Attributes:
        source: Text.
        target: Text.
        group: What results are also reported by, for example a locale; empty if nothing.
        place: Where the pair stands, ``file:line``, for errors; empty if in no file.
    """

    source: str
    target: str
    group: str = ""
    place: str = ""


@dataclass(kw_only=True)
class DataSource(ABC):
    """Yields the pairs of each split, and holds the settings for tokenising and batching them.

    The fields are the keys of ``data`` in a config. A subclass adds its own.

    Attributes:
        name: The value of ``data.task`` that selects the class.
        group_name: What `Pair.group` holds; None if nothing.
        source_tokens: Name of the source tokenizer, ``characters`` or ``spaces``.
        target_tokens: Name of the target tokenizer, likewise.
        min_count: Symbols that occur less often in the training pairs are unknown, on both sides.
        batch_size: Pairs in a batch.
        max_epochs: Number of epochs that suits the data; ``trainer.max_epochs`` refers to it.
        num_workers: Processes that prepare batches; 0 prepares them in the training process, which is fastest here.
    """

    name: ClassVar[str]
    group_name: ClassVar[str | None] = None

    source_tokens: str
    target_tokens: str
    min_count: Count
    batch_size: Count
    max_epochs: Count
    num_workers: Natural

    def __post_init__(self) -> None:
        check("data", asdict(self), type(self))
        check_choice("data.source_tokens", self.source_tokens, TOKENIZERS)
        check_choice("data.target_tokens", self.target_tokens, TOKENIZERS)

    def to_dict(self) -> dict[str, Any]:
        """Return the section ``data`` of a config; `build_source` builds an equal source from it."""
        return {"task": self.name} | asdict(self)

    @abstractmethod
    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split, the same ones in the same order every time.

        Raises:
            UserError: If a file cannot be read or a line is not valid.
        """

    def check_length(self, side: str, length: int, place: str) -> None:  # noqa: B027 - by default, any length is allowed
        """Raise if a text has more tokens than the source allows.

        Args:
            side: ``source`` or ``target``.
            length: Number of tokens.
            place: `Pair.place`.

        Raises:
            UserError: If the text is too long.
        """
