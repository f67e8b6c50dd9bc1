"""Encoded pairs in flat storage, read as padded batches."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seq2seq.data.batch import Batch
from seq2seq.data.vocabulary import PAD, Vocabulary

CHUNK = 1_000_000
"""Number of ids that are held in memory before they are written."""


class FlatSequences:
    """Many sequences of ids in one int32 tensor with offsets, which takes four bytes per token.

    Attributes:
        ids: The ids of all sequences, concatenated, int32.
        offsets: Where each sequence starts in `ids`, and where the last one ends, ``(N + 1,)``.

    Example:
        >>> FlatSequences([[5, 6], [7, 8, 9]]).padded(torch.tensor([1, 0]))
        tensor([[7, 8, 9],
                [5, 6, 0]])
    """

    def __init__(self, sequences: Iterable[Sequence[int]] = ()) -> None:
        ids, offsets = array("i"), array("q", [0])
        for sequence in sequences:
            ids.extend(sequence)
            offsets.append(len(ids))
        self.ids, self.offsets = torch.from_numpy(np.array(ids)), torch.from_numpy(np.array(offsets))

    @classmethod
    def from_arrays(cls, ids: np.ndarray, offsets: np.ndarray) -> Self:
        """Return sequences that share the memory of their ids, int32, and offsets, int64."""
        sequences = cls()
        sequences.ids, sequences.offsets = torch.from_numpy(ids), torch.from_numpy(offsets)
        return sequences

    @classmethod
    def mapped(cls, path: Path) -> Self:
        """Return what `TokenSequences` wrote; it is read when it is needed, and all processes share the memory."""
        ids, offsets = path.with_suffix(".ids"), path.with_suffix(".offsets")
        return cls.from_arrays(np.memmap(ids, np.int32, mode="c"), np.memmap(offsets, np.int64, mode="c"))

    @cached_property
    def lengths(self) -> Tensor:
        """Number of ids of each sequence, ``(N,)``."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> list[int]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]].tolist()

    def padded(self, indices: Tensor) -> Tensor:
        """Return the sequences of ``indices``, ``(B,)``, as one right-padded tensor of ids, ``(B, S)``."""
        lengths = self.lengths[indices].unsqueeze(1)
        steps = torch.arange(int(lengths.max()) if len(lengths) else 0)
        positions = (self.offsets[indices].unsqueeze(1) + steps).clamp(max=len(self.ids) - 1)  # (B, S)
        return self.ids[positions].long().masked_fill(steps >= lengths, PAD)


class TokenSequences:
    """Sequences of tokens that are encoded once their vocabulary is known.

    Symbols are numbered in the order in which they appear. The vocabulary of a training set is known only after its
    last text, and thanks to these numbers no text has to be tokenised again.

    Args:
        path: Ids and offsets are written to new files, ``path.ids`` and ``path.offsets``, so that they need no memory;
            None keeps them in memory.

    Attributes:
        numbers: Each symbol and its number.

    Example:
        >>> sequences = TokenSequences()
        >>> sequences.append(["b", "a", "b"])
        >>> sequences.counts()
        {'b': 2, 'a': 1}
        >>> sequences.encode(Vocabulary(["a", "b"])).ids
        tensor([5, 4, 5], dtype=torch.int32)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.numbers: dict[str, int] = {}
        self._path = path
        self._numbers, self._offsets = array("i"), array("q", [0])
        self._written = 0

    def append(self, tokens: Iterable[str]) -> None:
        """Add the tokens of a text."""
        numbers = self.numbers
        self._numbers.extend([numbers.setdefault(token, len(numbers)) for token in tokens])
        self._offsets.append(self._written + len(self._numbers))
        if self._path and len(self._numbers) >= CHUNK:
            self._write(self._path)

    def _write(self, path: Path) -> None:
        for buffer, suffix in ((self._numbers, ".ids"), (self._offsets, ".offsets")):
            with path.with_suffix(suffix).open("ab") as file:
                buffer.tofile(file)
        self._written += len(self._numbers)
        self._numbers, self._offsets = array("i"), array("q")

    def counts(self) -> dict[str, int]:
        """Return how often each symbol occurs."""
        counts = np.zeros(len(self.numbers), dtype=np.int64)
        for chunk in self._chunks():
            counts += np.bincount(chunk, minlength=len(counts))
        return dict(zip(self.numbers, counts.tolist(), strict=True))

    def encode(self, vocabulary: Vocabulary) -> FlatSequences:
        """Return the ids of all sequences. They replace the numbers, so this is the last call."""
        table = np.array(vocabulary.ids(self.numbers), dtype=np.int32)
        for chunk in self._chunks():
            chunk[:] = table[chunk]
        if self._path:
            return FlatSequences.mapped(self._path)
        return FlatSequences.from_arrays(np.asarray(self._numbers), np.asarray(self._offsets))

    def _chunks(self) -> Iterator[np.ndarray]:
        """Yield all numbers, piece by piece, in the place where they are kept."""
        numbers = np.asarray(self._numbers)
        if self._path:
            self._write(self._path)
            numbers = np.memmap(self._path.with_suffix(".ids"), np.int32, mode="r+")
        for start in range(0, len(numbers), CHUNK):
            yield numbers[start : start + CHUNK]


class PairDataset(Dataset[Batch]):
    """Pairs of encoded source and target. An item is a whole batch, so nothing is collated in Python.

    Targets have neither begin nor end; None is for sources alone, whose targets are empty. Features are those of the
    sources; None if there are none.

    Example:
        >>> dataset = PairDataset(FlatSequences([[5], [5, 6, 7]]), FlatSequences([[6, 7], [8]]))
        >>> batch = dataset[[1, 0]]
        >>> batch.source, batch.source_lengths
        (tensor([[5, 6, 7],
                [5, 0, 0]]), tensor([3, 1]))
    """

    def __init__(
        self, sources: FlatSequences, targets: FlatSequences | None = None, features: FlatSequences | None = None
    ) -> None:
        self.sources, self.features = sources, features
        self.targets = FlatSequences([()] * len(sources)) if targets is None else targets

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of the given pairs."""
        index = torch.as_tensor(indices, dtype=torch.long)
        source, target = ((side.padded(index), side.lengths[index]) for side in (self.sources, self.targets))
        features = None if self.features is None else self.features.padded(index)
        return Batch.from_padded(*source, *target, index, features)


class Shares(PairDataset):
    """The share that the process ``rank`` of so many has in each batch: one pair in so many, from its rank on.

    A share is empty where a batch has fewer pairs than there are processes.
    """

    def __init__(self, dataset: PairDataset, rank: int, processes: int) -> None:
        super().__init__(dataset.sources, dataset.targets, dataset.features)
        self.rank, self.processes = rank, processes

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """Return the share of the batch of the given pairs."""
        own = super().__getitem__(indices[self.rank :: self.processes])
        tokens = int(self.targets.lengths[torch.as_tensor(indices)].sum()) + len(indices)  # and the ends
        return own._replace(share=int(own.target_lengths.sum()) * self.processes / tokens)
