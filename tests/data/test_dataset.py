"""Flat storage to padded batches; begin and end of targets."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.data import BOS, EOS, PAD, FlatSequences, PairDataset, Vocabulary
from seq2seq.data.dataset import TokenSequences

SEQUENCES = st.lists(st.lists(st.integers(4, 99), max_size=5), min_size=1)


def make_dataset():
    sources, targets = [[4, 5, 6], [8], [4, 4]], [[7], [9, 10], [5, 5]]
    return PairDataset(FlatSequences(sources), FlatSequences(targets))


def test_a_batch_holds_padded_pairs_in_the_given_order():
    batch = make_dataset()[[1, 0]]

    assert batch.source.tolist() == [[8, PAD, PAD], [4, 5, 6]]
    assert batch.source_lengths.tolist() == [1, 3]
    assert batch.target.tolist() == [[BOS, 9, 10, EOS], [BOS, 7, EOS, PAD]]
    assert batch.target_lengths.tolist() == [3, 2]  # with the end
    assert batch.indices.tolist() == [1, 0]


def test_inputs_start_with_begin_and_labels_finish_with_end():
    batch = make_dataset()[[1, 0]]

    assert batch.inputs.tolist() == [[BOS, 9, 10], [BOS, 7, EOS]]
    assert batch.labels.tolist() == [[9, 10, EOS], [7, EOS, PAD]]


def test_references_have_neither_begin_nor_end_nor_padding():
    assert make_dataset()[[1, 0]].references() == [[9, 10], [7]]


@given(sequences=SEQUENCES)
def test_references_are_the_targets_of_the_dataset(sequences):
    dataset = PairDataset(FlatSequences(sequences), FlatSequences(sequences))

    assert dataset[range(len(dataset))].references() == sequences


def test_targets_are_empty_in_a_dataset_of_sources():
    batch = PairDataset(FlatSequences([[4, 5], [6]]))[[0, 1]]

    assert batch.source.tolist() == [[4, 5], [6, PAD]]
    assert batch.target.tolist() == [[BOS, EOS], [BOS, EOS]]
    assert batch.references() == [[], []]


def test_lengths_and_indices_stay_on_the_cpu():
    batch = make_dataset()[[0]].to(torch.device("meta"))

    assert batch.source.is_meta
    assert batch.target.is_meta
    assert not any(values.is_meta for values in (batch.source_lengths, batch.target_lengths, batch.indices))


def test_each_id_takes_four_bytes():
    sequences = FlatSequences([[4] * 100] * 10)

    assert sequences.ids.nbytes == 4 * 1000


@given(texts=st.lists(st.lists(st.sampled_from("abcdef"), max_size=5), min_size=1))
def test_tokens_get_the_ids_of_a_vocabulary_that_is_known_only_later(texts):
    sequences = TokenSequences()
    for tokens in texts:
        sequences.append(tokens)
    vocabulary = Vocabulary.from_counts(sequences.counts(), min_count=2)

    encoded = sequences.encode(vocabulary)

    assert encoded.ids.tolist() == [index for tokens in texts for index in vocabulary.ids(tokens)]
    assert encoded.lengths.tolist() == list(map(len, texts))
