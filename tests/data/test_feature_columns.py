"""Columns of features: read after those of the source, in a vocabulary of their own, in any number."""

import pytest

from seq2seq.data import PAD, UNK, build_source, preparation, prepare
from seq2seq.data.tokenizer import check_columns
from seq2seq.errors import UserError
from seq2seq.training.datamodule import PairsDataModule

SETTINGS = {
    "task": "tsv", "train": None, "val": None, "test": None, "source_column": 1, "target_column": 2,
    "features_column": 3, "features_tokens": {"name": "split", "separator": ";"}, "source_tokens": "characters",
    "target_tokens": "characters", "min_count": 1, "max_length": 9, "batch_size": 8, "max_epochs": 1, "num_workers": 0,
}  # fmt: skip
LINES = "ab\tx\tN;PL\nba\ty\t\na\tz\tPL\n"
"""Two features, none and one."""


@pytest.fixture
def read(tmp_path):
    def prepared(train=LINES, test=LINES, **changes):
        paths = {}
        for split, content in (("train", train), ("test", test)):
            paths[split] = str(tmp_path / f"{split}.tsv")
            (tmp_path / f"{split}.tsv").write_text(content)
        return prepare(build_source(SETTINGS | paths | changes), ["train", "test"])

    return prepared


def test_features_have_a_vocabulary_of_their_own_and_an_empty_column_has_none(read):
    data = read()

    assert data.tokenizers.features.vocabulary.symbols == ["PL", "N"]  # the most frequent first
    assert data.tokenizers.source.vocabulary.symbols == ["a", "b"]
    assert data.datasets["test"][[0, 1, 2]].features.tolist() == [[5, 4], [PAD, PAD], [4, PAD]]
    assert data.datasets["test"][[1]].features.shape == (1, 0)


def test_a_feature_that_training_lacks_is_the_unknown_symbol(read):
    assert read(test="ab\tx\tN;DU\n").datasets["test"][[0]].features.tolist() == [[5, UNK]]


def test_a_text_has_the_columns_of_the_source_and_then_those_of_the_features(read):
    lines = "N\tx\tab\t1 2\nV\ty\ta\t2\n"  # features before the source, and after the target
    columns = {"source_column": 3, "features_column": [4, 1], "features_tokens": ["spaces", "characters"]}
    data = read(lines, lines, **columns)

    assert [pair.source for pair in data.pairs["test"]] == ["ab\t1 2\tN", "a\t2\tV"]
    assert data.tokenizers.columns == 3
    assert data.tokenizers.tokens("ab\t1 2\tN") == (["a", "b"], ["1", "2", "\tN"])


def test_a_text_without_their_column_is_refused(read):
    message = r"'ab': the text has 1 columns; the model reads 2, separated by tabs"
    with pytest.raises(UserError, match=message):
        read().tokenizers.encode("ab")
    check_columns("a\tb", columns=1)  # where no column is expected, a tab is text
    with pytest.raises(UserError, match=r"in\.txt:2: the text has 3 columns; the model reads 2"):
        check_columns("a\tb\tc", columns=2, place="in.txt:2")


def test_lower_case_and_normal_forms_are_for_texts(read):
    data = read("AB\tX\tN\n", "AB\tX\tN\n", lower_case=True, normalization={"source": "nfd", "target": "nfc"})

    assert data.tokenizers.tokens("AB\tN") == (["a", "b"], ["N"])


def test_all_batches_and_a_cache_hold_them(read, tmp_path, monkeypatch):
    in_memory = read()
    monkeypatch.setattr(preparation, "LARGE", 0)
    cold, warm = read(), read()

    batches = [next(iter(PairsDataModule(data).train_dataloader())) for data in (in_memory, cold, warm)]
    assert (tmp_path / ".cache").exists()
    assert [batch.features.tolist() for batch in batches] == [batches[0].features.tolist()] * 3
    assert warm.tokenizers.to_dicts() == in_memory.tokenizers.to_dicts()


def test_equal_sources_with_other_features_are_other_pairs(read):
    lines = "ab\tx\tN\nab\ty\tV\nab\tz\tN\n"

    assert [pair.references for pair in read(lines, lines, merge_references=True).pairs["test"]] == [["x", "z"], ["y"]]


def test_a_column_of_groups_is_what_results_are_reported_by(read):
    data = read(group_column=3)

    assert data.source.group_name == "group"
    assert [pair.group for pair in data.pairs["test"]] == ["N;PL", "", "PL"]
    assert read().source.group_name is None


def test_features_may_be_subwords_even_if_both_sides_share_theirs(read):
    tokens = {"name": "subwords", "size": 20}
    data = read(source_tokens=tokens, target_tokens=tokens, features_tokens=tokens, shared_vocabulary=True)

    assert data.tokenizers.source.model == data.tokenizers.target.model != data.tokenizers.features.model
    assert not data.datasets["test"][[1]].features.any()


def test_a_source_without_columns_cannot_have_features(tmp_path):
    (tmp_path / "a").write_text("ab\n")
    sides = [str(tmp_path / "a")] * 2
    kept = {key: value for key, value in SETTINGS.items() if not key.endswith("_column")}
    source = build_source(kept | {"task": "parallel", "train": sides})

    with pytest.raises(UserError, match=r"a:1: the text has 1 columns; the model reads 2"):
        prepare(source, ["train"])


def test_training_pairs_without_any_feature_are_refused(read):
    with pytest.raises(UserError, match=r"data\.train: no line has a token of the features"):
        read("ab\tx\t\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features_tokens": None}, r"data\.features_column=3 and data\.features_tokens=None must both be given"),
        ({"features_column": None}, r"data\.features_column=None and data\.features_tokens=.* must both be given"),
        ({"features_column": 2}, r"data\.target_column=2 must differ from data\.features_column=2"),
        ({"features_column": [3, 4]}, r"data\.features_column=\[3, 4\] and data\.features_tokens=.* lists of the same"),
        ({"features_column": 4}, r"train\.tsv:1: data\.features_column=4, but the line has 3 columns"),
        ({"group_column": 9}, r"train\.tsv:1: data\.group_column=9, but the line has 3 columns"),
    ],
)
def test_columns_that_do_not_fit_are_refused(read, changes, message):
    with pytest.raises(UserError, match=message):
        read(**changes)
