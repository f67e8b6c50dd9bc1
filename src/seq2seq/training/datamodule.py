"""Prepared pairs as Lightning's loaders of batches."""

import signal

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from seq2seq.data import Batch, BucketSampler, PreparedData, Split
from seq2seq.data.dataset import Shares
from seq2seq.data.sampler import FixedBatches
from seq2seq.errors import STOP_SIGNALS


class PairsDataModule(LightningDataModule):
    """Makes loaders of prepared pairs, and nothing else.

    Args:
        prepared: What `seq2seq.data.prepare` returned, with the splits that are needed.
        seed: Seed of the order of the training batches.
        start: The epoch whose order comes first, and how many of its training batches are already done, in a run that
            resumes. The trainer sets the epoch, too, but workers read ahead of it.
    """

    def __init__(self, prepared: PreparedData, *, seed: int = 0, start: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.prepared, self.seed, self.start = prepared, seed, start

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches, shuffled."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, sorted by length."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, sorted by length."""
        return self.loader("test")

    def loader(self, split: Split) -> DataLoader[Batch]:
        """Return the batches of a split."""
        source, dataset = self.prepared.source, self.prepared.datasets[split]
        lengths, training = (dataset.sources.lengths, dataset.targets.lengths), split == "train"
        sampler = BucketSampler(
            *lengths, batch_size=source.batch_size, max_tokens=source.batch_tokens, shuffle=training, seed=self.seed
        )
        if training:
            sampler.resume(*self.start)
        if getattr(self.trainer, "overfit_batches", 0):
            sampler = FixedBatches(list(sampler))
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            dataset if processes == 1 else Shares(dataset, rank, processes),
            batch_size=None,
            sampler=sampler,
            num_workers=source.num_workers,
            worker_init_fn=leave_signals_to_parent,
        )


GRACE = 5  # seconds that a worker lives on after SIGTERM


def leave_signals_to_parent(_worker: int) -> None:
    """Let a worker ignore the signals that end a run: a terminal and Slurm send them to all processes of a job.

    A worker that they ended would end its parent with an error, in the middle of a step. SIGTERM is obeyed later, as a
    parent that fails ends its workers with it.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
