"""Batches of like length: every row once, seeded, different every epoch."""

import pytest
import torch

from seq2seq.data import BucketSampler

N = 1000


def make_sampler(shuffle=True, seed=1, batch_size=8):
    torch.manual_seed(0)
    lengths = torch.randint(1, 50, (N,))
    return BucketSampler(lengths, lengths.flip(0), batch_size=batch_size, shuffle=shuffle, seed=seed), lengths


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_comes_once_and_the_length_is_right(shuffle):
    sampler, _ = make_sampler(shuffle, batch_size=7)

    batches = list(sampler)

    assert sorted(row for batch in batches for row in batch) == list(range(N))
    assert len(batches) == len(sampler) == 143
    assert max(map(len, batches)) == 7


def test_epochs_differ_and_an_epoch_can_be_had_again():
    sampler, _ = make_sampler()
    first = list(sampler)

    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)

    assert first != second
    assert list(sampler) == first


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    assert list(make_sampler(seed=1)[0]) == list(make_sampler(seed=1)[0])
    assert list(make_sampler(seed=1)[0]) != list(make_sampler(seed=2)[0])


def test_rows_of_a_batch_are_of_like_length():
    sampler, lengths = make_sampler()

    padded = sum(int(lengths[batch].max()) * len(batch) for batch in sampler)

    assert padded < 1.1 * int(lengths.sum())  # at random it would be about twice the sum


def test_short_and_long_batches_are_mixed():
    sampler, lengths = make_sampler()
    order = [int(lengths[batch].max()) for batch in sampler]

    assert order != sorted(order)


def test_without_shuffling_rows_are_in_order_of_length():
    sampler, lengths = make_sampler(shuffle=False)
    order = [int(lengths[row]) for batch in sampler for row in batch]

    assert order == sorted(order)
