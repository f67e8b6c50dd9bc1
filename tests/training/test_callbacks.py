"""Callbacks by themselves; what they do in a run is in tests/commands/test_train.py."""

from types import SimpleNamespace

import torch

from seq2seq.training.callbacks import BatchSeed, EpochBar


def drawn(seed, epoch, batch):
    """Random numbers after the start of a batch."""
    trainer = SimpleNamespace(current_epoch=epoch, num_training_batches=10, global_rank=0)
    BatchSeed(seed).on_train_batch_start(trainer, None, None, batch)
    return tuple(torch.rand(4).tolist())


def test_every_seed_epoch_and_batch_has_random_numbers_of_its_own():
    batches = [(seed, epoch, batch) for seed in (0, 1, 2) for epoch in (0, 1, 2) for batch in (0, 1, 9)]

    assert len({drawn(*batch) for batch in batches}) == len(batches)
    assert drawn(1, 2, 3) == drawn(1, 2, 3)


def test_the_bar_counts_epochs_as_the_log_does():
    bar = EpochBar()
    bar._trainer = SimpleNamespace(max_epochs=3)

    assert bar._get_train_description(current_epoch=2).strip() == "epoch 3 of 3"
    bar._trainer.max_epochs = -1  # a number of steps ends the run
    assert bar._get_train_description(current_epoch=2).strip() == "epoch 3"
