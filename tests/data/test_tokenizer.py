"""Text to tokens to ids and back."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.data import UNK, CharacterTokenizer, SpaceTokenizer, Tokenizers, Vocabulary, tokenizer_from_dict
from seq2seq.data.tokenizer import GraphemeTokenizer, Normaliser, SubwordTokenizer
from seq2seq.errors import UserError

normalise = Normaliser()


@given(texts=st.lists(st.text(min_size=1), min_size=1))
def test_encoding_and_decoding_characters_gives_the_normalised_text(texts):
    symbols = sorted({character for text in texts for character in normalise(text)})
    tokenizer = CharacterTokenizer(Vocabulary(symbols))

    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == [normalise(text) for text in texts]


def test_tokens_are_split_at_spaces_only():
    tokenizer = SpaceTokenizer(Vocabulary(["t\u00a0s", "e"]))  # a no-break space belongs to its token

    assert tokenizer.tokenize(" e  t\u00a0s e ") == ["e", "t\u00a0s", "e"]
    assert tokenizer.decode(tokenizer.encode(" e  t\u00a0s e ")) == "e t\u00a0s e"


def test_a_letter_and_its_accent_become_one_character():
    tokenizer = CharacterTokenizer(Vocabulary(["\u00e9"]))

    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9") == [4]


def test_a_symbol_outside_the_vocabulary_is_unknown():
    tokenizer = CharacterTokenizer(Vocabulary(["a"]))

    assert tokenizer.encode("ab") == [4, UNK]


def test_rare_symbols_are_left_out_and_frequent_ones_come_first():
    vocabulary = Vocabulary.from_counts({"a": 2, "b": 3, "c": 1}, min_count=2)

    assert vocabulary.symbols == ["b", "a"]
    assert len(vocabulary) == 6  # with padding, begin, end and unknown


def test_a_tokenizer_can_be_rebuilt_from_plain_values():
    tokenizer = SpaceTokenizer(Vocabulary(["x", "y"]))

    rebuilt = tokenizer_from_dict(tokenizer.to_dict())

    assert type(rebuilt) is SpaceTokenizer
    assert rebuilt.to_dict() == {"tokens": "spaces", "symbols": ["x", "y"], "normalization": "nfc", "lower_case": False}
    assert rebuilt.encode("y x") == tokenizer.encode("y x")


@pytest.mark.parametrize(
    "tokenizer",
    [
        GraphemeTokenizer(Vocabulary(["x", "y"])),
        SubwordTokenizer(Vocabulary(["x", "y"]), size=9).learned(lambda: ["xy xx"]),
    ],
)
def test_a_tokenizer_that_uses_a_library_can_be_copied_and_sent_to_a_process(tokenizer):
    """A moving average of the weights copies the whole module; a worker that is spawned is sent it."""
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode("xy") == tokenizer.encode("xy")


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(UserError, match="tokens=words must be one of characters, graphemes, spaces, split, subwords"):
        tokenizer_from_dict({"tokens": "words", "symbols": ["a"]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"symbols": []}, r"tokenizer\.symbols=\[\] must be a list of at least one"),
        ({"symbols": ["a", 1]}, r"tokenizer\.symbols=1 must be a string"),
        ({"normalization": "nfx"}, r"tokenizer\.normalization=nfx must be one of nfc, nfkc, nfd, nfkd, none"),
        ({"tokens": "subwords"}, r"tokenizer\.tokens=subwords has no model"),
        ({"tokens": ["spaces", {"name": "subwords"}]}, r"tokenizer\.tokens=.* has no model"),
    ],
)
def test_an_odd_tokenizer_of_a_checkpoint_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        tokenizer_from_dict({"tokens": "spaces", "symbols": ["a"]} | values)


def test_an_open_target_tells_texts_apart_that_no_model_knows():
    closed = Tokenizers(CharacterTokenizer(Vocabulary(["a"])), CharacterTokenizer(Vocabulary(["x", "y"])))
    opened = closed.with_open_target()

    assert closed.target.encode("xq") == closed.target.encode("xw")
    assert opened.target.encode("xq") != opened.target.encode("xw")
    assert opened.target.decode(opened.target.encode("xqw")) == "xqw"
    assert opened.target.encode("xy") == closed.target.encode("xy")
    assert closed.target.vocabulary.symbols == ["x", "y"]  # not changed
    subwords = SubwordTokenizer(Vocabulary([]), size=9).learned(lambda: ["xy xx"])
    opened = Tokenizers(closed.source, subwords).with_open_target()
    assert opened.target.encode("x☃") != opened.target.encode("x☂")
