"""Batches of similar length."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

POOL = 100
"""Number of batches in a pool that is sorted by length. Larger pools mean less padding and less random batches."""


class FixedBatches(SequentialSampler):
    """The same batches in every epoch, for ``trainer.overfit_batches``.

    Lightning replaces any other sampler by a `SequentialSampler` over the dataset, which would yield single pairs.
    This one is made of the list of the batches, each a list of indices.
    """

    data_source: Any

    def __iter__(self) -> Iterator[list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return iter(self.data_source)


class BucketSampler(Sampler[list[int]]):
    """Yields the indices of one batch after another; the pairs of a batch have similar lengths.

    In training, the pairs are shuffled and divided into pools of ``POOL * batch_size``, or one pool if ``max_tokens``
    is set, so that every epoch has as many batches. Each pool is sorted by length and divided into batches, and finally
    the batches are shuffled. The order depends on the seed and the epoch only.
    Pools are sorted by target first, because every padded target token costs time, while sources are packed.

    Without shuffling, all pairs are sorted by source and then by target, as the targets may be unknown.
    Pass it as a ``sampler`` of whole batches, ``DataLoader(dataset, sampler=..., batch_size=None)``, and not as a
    ``batch_sampler``: Lightning calls ``set_epoch`` of a loader's sampler only.

    Args:
        source_lengths: Number of tokens of each source, ``(N,)``.
        target_lengths: The same of the targets.
        batch_size: Maximum number of pairs in a batch.
        shuffle: Whether to shuffle, as in training, with ``seed``.
        max_tokens: Maximum number of tokens of either side in a batch, padding included; a longer pair is a batch by
            itself. None sets no limit.

    Example:
        >>> lengths = torch.tensor([3, 1, 3, 1])
        >>> list(BucketSampler(lengths, lengths, batch_size=2, shuffle=False))
        [[1, 3], [0, 2]]
        >>> list(BucketSampler(lengths, lengths, batch_size=2, shuffle=False, max_tokens=5))
        [[1, 3], [0], [2]]
    """

    def __init__(
        self,
        source_lengths: Tensor,
        target_lengths: Tensor,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        max_tokens: int | None = None,
    ) -> None:
        self.source_lengths, self.target_lengths = source_lengths, target_lengths
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.shuffle, self.seed = shuffle, seed
        self.epoch = 0
        self._resumed = (0, 0)

    def __len__(self) -> int:
        return math.ceil(len(self.source_lengths) / self.batch_size) if self.max_tokens is None else len(self._sizes)

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch; the trainer calls this before each epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, batch: int) -> None:
        """Go on in an epoch, of which so many batches are done; `__len__` still counts all batches."""
        self.epoch = epoch
        self._resumed = (epoch, batch)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self._resumed
        batches = self._batches()[done if self.epoch == epoch else 0 :]
        return (batch.tolist() for batch in batches)

    def _batches(self) -> Sequence[Tensor]:
        if not self.shuffle:
            return self._divide(self._sort(torch.arange(len(self.source_lengths))))
        # The factor keeps pairs of seed and epoch apart: seed 1, epoch 1 must differ from seed 2, epoch 0.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.source_lengths), generator=generator)
        pools = shuffled.split(POOL * self.batch_size) if self.max_tokens is None else [shuffled]
        batches = [batch for pool in pools for batch in self._divide(self._sort(pool))]
        return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]

    def _sort(self, indices: Tensor) -> Tensor:
        source, target = self.source_lengths[indices], self.target_lengths[indices]
        first, second = source, target
        if self.shuffle:
            # Sources ascend within one target length and descend within the next, so that where two target lengths
            # meet, their sources are of similar length, too.
            first, second = target, torch.where(target % 2 == 0, source, -source)
        order = second.argsort(stable=True)
        return indices[order[first[order].argsort(stable=True)]]

    def _divide(self, indices: Tensor) -> Sequence[Tensor]:
        if not len(indices):
            return []
        return indices.split(self.batch_size if self.max_tokens is None else self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        """The sizes of the batches under ``max_tokens``; sorted pairs have the same lengths in every epoch."""
        indices = self._sort(torch.arange(len(self.source_lengths)))
        sizes: list[int] = []
        longest = 0
        for length in torch.maximum(self.source_lengths[indices], self.target_lengths[indices]).tolist():
            longest = max(longest, length)
            if sizes and sizes[-1] < self.batch_size and (sizes[-1] + 1) * longest <= (self.max_tokens or 0):
                sizes[-1] += 1
            else:
                sizes.append(1)
                longest = length
        return sizes
