"""Tokenizers with options: grapheme clusters, separators, subwords, normal forms, shared vocabularies."""

import re
import sys

import pytest

from seq2seq.data import UNK, build_source, build_tokenizer, prepare, tokenizer_from_dict
from seq2seq.data.tokenizer import Normaliser, SubwordTokenizer
from seq2seq.errors import UserError

TEXTS = ["The lower, the slower.", "A low tower (slow)!", "lower and lower", "the lowest town"] * 3
SUBWORDS = {"name": "subwords", "size": 60}
SETTINGS = {
    "task": "tsv", "val": None, "test": None, "source_column": 1, "target_column": 2, "min_count": 1,
    "max_length": 99, "batch_size": 8, "max_epochs": 1, "num_workers": 0,
    "source_tokens": SUBWORDS, "target_tokens": SUBWORDS,
}  # fmt: skip


def learned(size=40):
    return build_tokenizer({"name": "subwords", "size": size}).learned(lambda: TEXTS)


@pytest.fixture
def data(tmp_path):
    def make(**changes):
        path = tmp_path / "pairs.tsv"
        path.write_text("".join(f"{text}\t{text[::-1]}\n" for text in TEXTS))
        return prepare(build_source(SETTINGS | {"train": str(path), "test": str(path)} | changes), ["test"])

    return make


@pytest.mark.parametrize("text", [*TEXTS, "slower towns", "a  w"])
def test_subwords_join_to_the_text(text):
    tokenizer = learned()

    assert tokenizer.detokenize(tokenizer.tokenize(text)) == text


def test_frequent_sequences_are_one_token_and_no_token_crosses_a_space_or_a_comma():
    tokens = learned().tokenize("The lower, the slower.")

    assert "▁lower" in tokens
    assert {",", "."} <= set(tokens)
    assert all("▁" not in token[1:] for token in tokens)


def test_the_same_texts_give_the_same_subwords():
    assert learned().model == learned().model


def test_a_letter_that_the_training_texts_lack_is_unknown_and_the_others_are_kept(data):
    tokenizer = data().tokenizers.source

    ids = tokenizer.encode("lowér")

    assert ids.count(UNK) == 1
    assert tokenizer.decode(ids).replace("<unk>", "é") == "lowér"


def test_what_was_learned_travels_in_plain_values(data):
    tokenizer = data().tokenizers.source

    rebuilt = tokenizer_from_dict(tokenizer.to_dict())

    assert isinstance(rebuilt, SubwordTokenizer)
    assert isinstance(tokenizer.to_dict()["tokens"]["model"], str)
    assert [rebuilt.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_a_damaged_model_is_refused():
    with pytest.raises(UserError, match="model is not what the library tokenizers has written"):
        build_tokenizer({"name": "subwords", "model": "{}"})


def test_sides_learn_apart_or_together(data):
    apart, together = data(), data(shared_vocabulary=True)

    assert apart.tokenizers.source.to_dict() != apart.tokenizers.target.to_dict()
    assert together.tokenizers.source.to_dict() == together.tokenizers.target.to_dict()
    symbols = {token.removeprefix("▁") for token in together.tokenizers.target.vocabulary.symbols}
    assert {"lower", "rewol"} <= symbols


def test_a_shared_vocabulary_counts_both_sides(data):
    words = {"source_tokens": "spaces", "target_tokens": "spaces", "min_count": 6}

    # "lower" occurs six times in the sources, and in no target.
    assert "lower" not in data(**words).tokenizers.target.vocabulary.symbols
    shared = data(**words, shared_vocabulary=True)
    for tokenizer in (shared.tokenizers.source, shared.tokenizers.target):
        assert {"lower", "rewol"} <= set(tokenizer.vocabulary.symbols)
    with pytest.raises(UserError, match=r"data\.shared_vocabulary=true needs equal tokens on both sides"):
        data(shared_vocabulary=True, target_tokens="characters")


def test_only_the_most_frequent_symbols_are_kept_by_option(data):
    characters = {"source_tokens": "characters", "target_tokens": "characters"}

    every, few = data(**characters), data(**characters, max_symbols=3)

    assert few.tokenizers.source.vocabulary.symbols == every.tokenizers.source.vocabulary.symbols[:3]


def test_form_d_takes_a_syllable_apart_and_predictions_are_composed_again(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("한글\t한글\n")
    characters = {"source_tokens": "characters", "target_tokens": "characters"}

    files = {"train": str(path), "test": str(path)}
    data = prepare(build_source(SETTINGS | characters | files | {"normalization": "nfd"}), ["test"])

    assert len(data.datasets["train"].sources[0]) == 6  # letters, and not two syllables
    assert data.tokenizers.target.decode(data.datasets["train"].targets[0]) == "한글"
    assert data.pairs["test"][0].source == data.pairs["test"][0].target == "한글"


@pytest.mark.parametrize(("side", "length"), [("source", 2), ("target", 1)])
def test_each_side_may_have_its_own_form(tmp_path, side, length):
    path = tmp_path / "pairs.tsv"
    path.write_text("\u00e9\te\u0301\n")
    characters = {"source_tokens": "characters", "target_tokens": "characters"}
    forms = {"source": "nfd", "target": "nfc"}

    data = prepare(build_source(SETTINGS | characters | {"train": str(path), "normalization": forms}), ["train"])

    assert int(getattr(data.datasets["train"], f"{side}s").lengths) == length


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [("nfc", "ʰ", "ʰ"), ("nfkc", "ʰ", "h"), ("nfkd", "ﬁ", "fi"), ("none", "e\u0301", "e\u0301")],
)
def test_normal_forms(form, text, expected):
    assert Normaliser(form)(text) == expected


def test_lower_case_is_applied_before_the_normal_form():
    assert Normaliser("nfc", lower_case=True)("E\u0301") == "\u00e9"


def test_grapheme_clusters_are_what_readers_take_for_characters():
    tokenizer = build_tokenizer("graphemes")

    assert tokenizer.tokenize("स्ते👩‍👩‍👧e\u0301") == ["स्ते", "👩‍👩‍👧", "e\u0301"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("words", "data.source_tokens=words must be one of characters, graphemes, spaces, split, subwords"),
        (
            {"name": "split"},
            "data.source_tokens.separator is missing; the keys of data.source_tokens are name, separator",
        ),
        ({"name": "split", "separator": ""}, "data.source_tokens: separator='' must be a text without tabs"),
        ({"name": "spaces", "size": 3}, "data.source_tokens.size is unknown; the keys of data.source_tokens are name"),
        ({"name": "subwords", "size": 0}, "data.source_tokens.size=0 must be a whole number of at least 1"),
        (["characters"], "data.source_tokens=['characters'] must be a name, or a list with one entry for each"),
        (["characters", "x"], "data.source_tokens[1]=x must be one of"),
        (
            ["characters", "spaces"],
            "data.source_column=1 and data.source_tokens=['characters', 'spaces'] must be lists",
        ),
    ],
)
def test_tokens_that_make_no_sense_are_refused_by_key(data, spec, message):
    with pytest.raises(UserError, match=re.escape(message)):
        data(source_tokens=spec)


def test_a_target_has_one_column(data):
    with pytest.raises(UserError, match=r"data\.target_tokens=.* must not be a list: a target has one column"):
        data(target_tokens=["characters", "spaces"])


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)

    with pytest.raises(UserError, match=r"the package tokenizers is not installed: pip install -e '\.\[text\]'"):
        build_tokenizer("subwords")
