"""Batches of rows of like length."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

POOL = 100
"""How many batches are drawn at random before they are sorted by length: more pads less and mixes less."""


class BucketSampler(Sampler[list[int]]):
    """Yields the rows of one batch after another, rows of like length together.

    In training the rows are shuffled, cut into pools of ``100 * batch_size``, sorted by length inside each pool, cut
    into batches, and the batches shuffled. All of it follows from the seed and the epoch alone. Otherwise the rows are
    sorted by length over the whole corpus.

    It is a ``sampler`` of whole batches (``DataLoader(corpus, sampler=..., batch_size=None)``) and no
    ``batch_sampler``, as Lightning calls ``set_epoch`` on a loader's sampler only.

    Args:
        source_lengths: Tokens of each source, ``(N,)``.
        target_lengths: Tokens of each target, ``(N,)``.
        batch_size: Rows in a batch; the last one may hold fewer.
        shuffle: Whether this is for training.
        seed: Of the shuffling.

    Example:
        >>> lengths = torch.tensor([3, 1, 3, 1])
        >>> list(BucketSampler(lengths, lengths, batch_size=2, shuffle=False, seed=0))
        [[1, 3], [0, 2]]
    """

    def __init__(
        self, source_lengths: Tensor, target_lengths: Tensor, *, batch_size: int, shuffle: bool, seed: int
    ) -> None:
        # One number that sorts by the source first and by the target among equals.
        self.order = source_lengths * (int(target_lengths.max()) + 1) + target_lengths
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given epoch; the trainer calls this before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            yield from (rows.tolist() for rows in self.order.argsort(stable=True).split(self.batch_size))
            return
        # The generator mixes nearby seeds well, but (seed, epoch) pairs must not meet: seed 1, epoch 1 is not 2, 0.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.order), generator=generator)
        pools = [pool[self.order[pool].argsort(stable=True)] for pool in shuffled.split(POOL * self.batch_size)]
        batches = [batch for pool in pools for batch in pool.split(self.batch_size)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[place].tolist()
