"""Batches of similar length: every pair once, seeded, another order in every epoch."""

import pytest
import torch

from seq2seq.data import BucketSampler, FlatSequences, PairDataset
from seq2seq.data.dataset import Shares

N = 1000


def make_sampler(shuffle=True, seed=1, batch_size=8, max_tokens=None):
    generator = torch.Generator().manual_seed(0)
    sources = torch.randint(3, 30, (N,), generator=generator)
    targets = sources + torch.randint(-2, 3, (N,), generator=generator)
    sampler = BucketSampler(sources, targets, batch_size=batch_size, shuffle=shuffle, seed=seed, max_tokens=max_tokens)
    return sampler, sources, targets


def padded_size(lengths, batches):
    return sum(int(lengths[batch].max()) * len(batch) for batch in batches)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_tokens", [None, 70])
def test_every_pair_comes_once_and_the_number_of_batches_is_right(shuffle, max_tokens):
    sampler, *_ = make_sampler(shuffle, batch_size=7, max_tokens=max_tokens)

    batches = list(sampler)

    assert sorted(index for batch in batches for index in batch) == list(range(N))
    assert len(batches) == len(sampler)
    assert (len(batches) == 143) is (max_tokens is None)
    assert max(map(len, batches)) == 7


def test_epochs_differ_and_an_epoch_can_be_repeated():
    sampler, *_ = make_sampler()
    first = list(sampler)

    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)

    assert first != second
    assert list(sampler) == first


def test_the_same_seed_gives_the_same_batches_and_another_seed_gives_others():
    assert list(make_sampler(seed=1)[0]) == list(make_sampler(seed=1)[0])
    assert list(make_sampler(seed=1)[0]) != list(make_sampler(seed=2)[0])


def test_the_pairs_of_a_training_batch_have_similar_lengths():
    sampler, sources, targets = make_sampler()

    assert padded_size(targets, sampler) < 1.05 * int(targets.sum())  # about 1.75 times in random batches
    assert padded_size(sources, sampler) < 1.15 * int(sources.sum())


def test_source_lengths_match_where_two_target_lengths_meet():
    targets, sources = torch.tensor([2, 2, 2, 3, 3, 3]), torch.tensor([7, 9, 8, 7, 9, 8])

    batches = sorted(map(sorted, BucketSampler(sources, targets, batch_size=2, shuffle=True)))

    assert batches == [[0, 2], [1, 4], [3, 5]]  # source lengths 7 and 8, 9 and 9, 7 and 8


def test_batches_of_short_and_long_pairs_are_mixed():
    lengths = torch.arange(200) % 50 + 1  # one pool of batches
    longest = [int(lengths[batch].max()) for batch in BucketSampler(lengths, lengths, batch_size=7, shuffle=True)]

    assert longest != sorted(longest)


def test_a_pair_meets_other_pairs_in_another_epoch():
    sampler, *_ = make_sampler()
    first = {frozenset(batch) for batch in sampler}

    sampler.set_epoch(1)

    assert len(first & {frozenset(batch) for batch in sampler}) < 0.1 * len(first)


def test_the_second_epoch_of_a_seed_is_not_the_first_of_the_next_seed():
    sampler, *_ = make_sampler(seed=1)
    sampler.set_epoch(1)

    assert list(sampler) != list(make_sampler(seed=2)[0])


def test_without_shuffling_pairs_are_sorted_by_source_then_target():
    sampler, sources, targets = make_sampler(shuffle=False)
    lengths = [(int(sources[index]), int(targets[index])) for batch in sampler for index in batch]

    assert lengths == sorted(lengths)


def test_a_long_source_is_not_batched_with_many_short_ones():
    lengths = torch.tensor([1] * 70 + [9_000, 20_000])

    sampler = BucketSampler(lengths, torch.zeros(72), batch_size=64, shuffle=False, max_tokens=64 * 256)

    assert [len(batch) for batch in sampler] == [64, 6, 1, 1]
    assert len(sampler) == 4
    assert [index for batch in sampler for index in batch] == list(range(72))


@pytest.mark.parametrize("shuffle", [True, False])
def test_no_batch_exceeds_the_maximum_number_of_tokens(shuffle):
    sampler, sources, _ = make_sampler(shuffle, max_tokens=50)

    assert all(len(batch) * int(sources[batch].max()) <= 50 for batch in sampler)


@pytest.mark.parametrize("max_tokens", [None, 5])
def test_no_pairs_give_no_batches(max_tokens):
    none = torch.zeros(0, dtype=torch.int64)

    sampler = BucketSampler(none, none, batch_size=2, shuffle=False, max_tokens=max_tokens)

    assert list(sampler) == []
    assert len(sampler) == 0


def test_processes_share_each_batch_without_loss():
    sequences = FlatSequences([[number] for number in range(9)])
    dataset = PairDataset(sequences, sequences)
    whole = list(BucketSampler(sequences.lengths, sequences.lengths, batch_size=4, shuffle=True, seed=3))

    for batch in whole:  # the ninth pair is a batch by itself
        first, second = (Shares(dataset, rank, 2)[batch].indices.tolist() for rank in range(2))
        assert sorted(first + second) == sorted(batch)
        assert 0 <= len(first) - len(second) <= 1
