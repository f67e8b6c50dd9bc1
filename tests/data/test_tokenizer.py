"""Text to tokens to ids and back, and flat storage to padded batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.data import BOS, EOS, PAD, UNK, Codec, Corpus, PairsDataModule, Vocabulary, build_task
from seq2seq.data.tokenizer import normalise, split
from seq2seq.errors import UserError


@given(texts=st.lists(st.text(min_size=1), min_size=1))
def test_characters_survive_the_way_to_ids_and_back(texts):
    vocabulary = Vocabulary.count([split(normalise(text), "characters") for text in texts], min_count=1)
    codec = Codec("characters", vocabulary)

    assert [codec.decode(codec.encode(text)) for text in texts] == [normalise(text) for text in texts]


def test_tokens_split_at_spaces_and_nowhere_else():
    codec = Codec("spaces", Vocabulary(["t\u00a0s", "e"]))  # a no-break space belongs to its token

    assert codec.split(" e  t\u00a0s e ") == ["e", "t\u00a0s", "e"]
    assert codec.decode(codec.encode(" e  t\u00a0s e ")) == "e t\u00a0s e"


def test_a_letter_and_its_accent_become_one_character():
    codec = Codec("characters", Vocabulary(["\u00e9"]))

    assert codec.encode("e\u0301") == codec.encode("\u00e9") != [UNK]


def test_an_unseen_symbol_is_unknown():
    codec = Codec("characters", Vocabulary(["a"]))

    assert codec.encode("ab") == [4, UNK]


def test_rare_symbols_are_left_out_and_frequent_ones_come_first():
    vocabulary = Vocabulary.count([list("bbaac"), list("b")], min_count=2)

    assert vocabulary.symbols == ["b", "a"]
    assert len(vocabulary) == 6  # with padding, begin, end and unknown


def test_a_codec_survives_as_plain_values():
    codec = Codec("spaces", Vocabulary(["x", "y"]))

    again = Codec.from_plain(codec.to_plain())

    assert again.to_plain() == {"tokens": "spaces", "symbols": ["x", "y"]}
    assert again.encode("y x") == codec.encode("y x")


def test_an_unknown_tokenisation_is_refused():
    with pytest.raises(UserError, match="tokens=words must be one of characters, spaces"):
        Codec("words", Vocabulary([]))


def test_a_batch_holds_padded_rows_in_the_order_asked_for():
    corpus = Corpus([([4, 5, 6], [7]), ([8], [9, 10]), ([4, 4], [5, 5])])

    batch = corpus[[1, 0]]

    assert batch.source.tolist() == [[8, PAD, PAD], [4, 5, 6]]
    assert batch.source_lengths.tolist() == [1, 3]
    assert batch.target.tolist() == [[BOS, 9, 10, EOS], [BOS, 7, EOS, PAD]]
    assert batch.inputs.tolist() == [[BOS, 9, 10], [BOS, 7, EOS]]
    assert batch.labels.tolist() == [[9, 10, EOS], [7, EOS, PAD]]
    assert batch.target_lengths.tolist() == [3, 2]  # the end included
    assert batch.rows.tolist() == [1, 0]


def test_lengths_stay_on_the_cpu():
    batch = Corpus([([4], [5])])[[0]].to(torch.device("meta"))

    assert batch.source.is_meta
    assert batch.target.is_meta
    assert not batch.source_lengths.is_meta


def test_a_vocabulary_without_symbols_is_refused(compose):
    settings = compose("train", "data=reverse", "data.min_count=100000").data

    with pytest.raises(UserError, match=r"data\.min_count=100000 leaves no symbol"):
        _ = PairsDataModule(build_task(settings), seed=0).codecs


def test_ids_take_four_bytes_each():
    corpus = Corpus([([4] * 100, [5] * 50)] * 10)

    assert corpus.sources.ids.nbytes == 4 * 1000
