"""Encoded pairs in flat storage, read as padded batches."""

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from seq2seq.data.batch import Batch
from seq2seq.data.vocabulary import BOS, EOS, PAD


class Sequences:
    """Many sequences of ids in one int32 tensor and their offsets, four bytes a token.

    Example:
        >>> Sequences([[5, 6], [7, 8, 9]]).padded(torch.tensor([1, 0]))
        tensor([[7, 8, 9],
                [5, 6, 0]])
    """

    def __init__(self, sequences: Iterable[Sequence[int]] = ()) -> None:
        self._ids, self._ends = array("i"), array("q", [0])
        for sequence in sequences:
            self.append(sequence)

    def append(self, sequence: Sequence[int]) -> None:
        """Add a sequence; not after the first read, which takes the storage as it is."""
        self._ids.extend(sequence)
        self._ends.append(len(self._ids))

    @cached_property
    def ids(self) -> Tensor:
        """All ids, one sequence behind the other, int32."""
        return torch.frombuffer(self._ids, dtype=torch.int32) if self._ids else torch.empty(0, dtype=torch.int32)

    @cached_property
    def starts(self) -> Tensor:
        """Where each sequence begins, ``(N,)``."""
        return torch.frombuffer(self._ends, dtype=torch.int64)[:-1]

    @cached_property
    def lengths(self) -> Tensor:
        """Number of ids of each sequence, ``(N,)``."""
        return torch.frombuffer(self._ends, dtype=torch.int64).diff()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def padded(self, rows: Tensor) -> Tensor:
        """Return the given rows as one right-padded tensor of ids, ``(B, S)``."""
        lengths = self.lengths[rows].unsqueeze(1)
        positions = torch.arange(int(lengths.max()))
        places = (self.starts[rows].unsqueeze(1) + positions).clamp(max=len(self.ids) - 1)
        return self.ids[places].long().masked_fill(positions >= lengths, PAD)


class Corpus(Dataset[Batch]):
    """Pairs of encoded source and target; an item is a whole batch, so nothing is collated in Python.

    Args:
        pairs: Ids of source and target, without begin or end.

    Example:
        >>> corpus = Corpus([([5], [6, 7]), ([5, 6, 7], [8])])
        >>> corpus[[1, 0]].source, corpus[[1, 0]].source_lengths
        (tensor([[5, 6, 7],
                [5, 0, 0]]), tensor([3, 1]))
    """

    def __init__(self, pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> None:
        self.sources, self.targets = Sequences(), Sequences()
        for source, target in pairs:
            self.sources.append(source)
            self.targets.append([BOS, *target, EOS])

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of the given rows."""
        index = torch.as_tensor(rows)
        return Batch(
            source=self.sources.padded(index),
            source_lengths=self.sources.lengths[index],
            target=self.targets.padded(index),
            target_lengths=self.targets.lengths[index] - 1,
            rows=index,
        )
