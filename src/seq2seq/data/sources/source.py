"""What every task is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from seq2seq.data.tokenizer import TOKENS
from seq2seq.errors import check_choice, check_count

Split = Literal["train", "val", "test"]


class Pair(NamedTuple):
    """A source text, its target, and where it comes from.

    Attributes:
        source: Normalised text.
        target: Normalised text.
        group: What results are also reported by (a locale, for the dates); empty if there is nothing.
    """

    source: str
    target: str
    group: str = ""


@dataclass(kw_only=True)
class Task(ABC):
    """Pairs for training, validation and test, and how they are tokenised and batched.

    The fields are the keys of ``data`` in a config; subclasses add their own.

    Attributes:
        source_tokens: ``characters`` or ``spaces``.
        target_tokens: Likewise.
        min_count: Symbols that occur less often in the training pairs are unknown, on both sides.
        batch_size: Pairs in a batch.
        max_epochs: Passes over the training pairs that suit the task; ``trainer.max_epochs`` refers to it.
        num_workers: Processes that prepare batches; 0 prepares them in the training process, which is fastest here.
    """

    group_name: ClassVar[str | None] = None

    source_tokens: str
    target_tokens: str
    min_count: int
    batch_size: int
    max_epochs: int
    num_workers: int

    def __post_init__(self) -> None:
        check_choice("data.source_tokens", self.source_tokens, TOKENS)
        check_choice("data.target_tokens", self.target_tokens, TOKENS)
        check_count("data.min_count", self.min_count)
        check_count("data.batch_size", self.batch_size)
        check_count("data.max_epochs", self.max_epochs)
        check_count("data.num_workers", self.num_workers, minimum=0)

    @abstractmethod
    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split, the same ones in the same order every time.

        Raises:
            UserError: If a file cannot be read or holds what it must not.
        """
