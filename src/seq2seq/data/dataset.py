"""Encoded pairs in flat storage, read as padded batches."""

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from seq2seq.data.batch import Batch
from seq2seq.data.vocabulary import PAD, Vocabulary


class FlatSequences:
    """Many sequences of ids in one int32 tensor with offsets, which takes four bytes per token.

    Args:
        sequences: The first sequences; `append` adds more.

    Example:
        >>> FlatSequences([[5, 6], [7, 8, 9]]).padded(torch.tensor([1, 0]))
        tensor([[7, 8, 9],
                [5, 6, 0]])
    """

    def __init__(self, sequences: Iterable[Sequence[int]] = ()) -> None:
        self._ids, self._offsets = array("i"), array("q", [0])
        for sequence in sequences:
            self.append(sequence)

    def append(self, sequence: Sequence[int]) -> None:
        """Add a sequence; only before the first read, after which tensors share the storage."""
        self._ids.extend(sequence)
        self._offsets.append(len(self._ids))

    @cached_property
    def ids(self) -> Tensor:
        """The ids of all sequences, concatenated, int32."""
        if not self._ids:
            return torch.empty(0, dtype=torch.int32)
        return torch.frombuffer(memoryview(self._ids), dtype=torch.int32)  # the view keeps the array from moving

    @cached_property
    def offsets(self) -> Tensor:
        """Where each sequence starts in `ids`, and where the last one ends, ``(N + 1,)``."""
        return torch.frombuffer(memoryview(self._offsets), dtype=torch.int64)

    @cached_property
    def lengths(self) -> Tensor:
        """Number of ids of each sequence, ``(N,)``."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> list[int]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]].tolist()

    def padded(self, indices: Tensor) -> Tensor:
        """Return the given sequences as one right-padded tensor of ids, ``(B, S)``.

        Args:
            indices: Positions of the sequences, ``(B,)``.
        """
        lengths = self.lengths[indices].unsqueeze(1)
        steps = torch.arange(int(lengths.max()))
        positions = (self.offsets[indices].unsqueeze(1) + steps).clamp(max=len(self.ids) - 1)  # (B, S)
        return self.ids[positions].long().masked_fill(steps >= lengths, PAD)


class TokenSequences:
    """Sequences of tokens that are encoded once their vocabulary is known.

    Symbols are numbered in the order in which they appear. The vocabulary of a training set is known only after its
    last text, and thanks to these numbers no text has to be tokenised again.

    Example:
        >>> sequences = TokenSequences()
        >>> sequences.append(["b", "a", "b"])
        >>> sequences.counts()
        {'b': 2, 'a': 1}
        >>> sequences.encode(Vocabulary(["a", "b"])).ids
        tensor([5, 4, 5], dtype=torch.int32)
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._sequences = FlatSequences()

    def append(self, tokens: Iterable[str]) -> None:
        """Add the tokens of a text."""
        self._sequences.append([self._numbers.setdefault(token, len(self._numbers)) for token in tokens])

    def counts(self) -> dict[str, int]:
        """Return how often each symbol occurs."""
        return dict(zip(self._numbers, torch.bincount(self._sequences.ids).tolist(), strict=True))

    def encode(self, vocabulary: Vocabulary) -> FlatSequences:
        """Return the ids of all sequences. The storage is reused, so this is the last call."""
        ids = torch.tensor(vocabulary.ids(self._numbers), dtype=torch.int32)
        self._sequences.ids.copy_(ids.index_select(0, self._sequences.ids))
        return self._sequences


class PairDataset(Dataset[Batch]):
    """Pairs of encoded source and target. An item is a whole batch, so nothing is collated in Python.

    Args:
        sources: Ids of the sources.
        targets: Ids of the targets, without begin and end; None for sources alone, whose targets are empty.

    Example:
        >>> dataset = PairDataset(FlatSequences([[5], [5, 6, 7]]), FlatSequences([[6, 7], [8]]))
        >>> batch = dataset[[1, 0]]
        >>> batch.source, batch.source_lengths
        (tensor([[5, 6, 7],
                [5, 0, 0]]), tensor([3, 1]))
    """

    def __init__(self, sources: FlatSequences, targets: FlatSequences | None = None) -> None:
        self.sources = sources
        self.targets = FlatSequences([()] * len(sources)) if targets is None else targets

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of the given pairs."""
        index = torch.as_tensor(indices)
        return Batch.from_padded(
            self.sources.padded(index),
            self.sources.lengths[index],
            self.targets.padded(index),
            self.targets.lengths[index],
            index,
        )
