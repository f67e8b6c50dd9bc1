"""Tab-separated files: what is read, and what is refused with its place."""

import re

import pytest

from seq2seq.data import build_source, prepare
from seq2seq.errors import UserError

SETTINGS = {
    "task": "tsv", "train": None, "val": None, "test": None, "source_column": 1, "target_column": 2,
    "source_tokens": "characters", "target_tokens": "spaces", "min_count": 1, "max_length": 9, "batch_size": 8,
    "max_epochs": 1, "num_workers": 0,
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def read_bytes(content, **changes):
        path = tmp_path / "pairs.tsv"
        path.write_bytes(content)
        source = build_source(SETTINGS | {"test": str(path)} | changes)
        return [(pair.source, pair.target) for pair in source.pairs("test")]

    return read_bytes


def test_a_line_is_a_pair(read):
    assert read("chat\tʃ a\nchien\tʃ j ɛ̃\n".encode()) == [("chat", "ʃ a"), ("chien", "ʃ j ɛ̃")]


def test_the_last_line_needs_no_line_end(read):
    assert read(b"ab\tc") == [("ab", "c")]


def test_columns_are_counted_from_1_and_other_columns_are_ignored(read):
    assert read(b"x\tab\ty\tc\n", source_column=4, target_column=2) == [("c", "ab")]


def test_a_byte_order_mark_and_windows_line_ends_are_not_text(read):
    assert read(b"\xef\xbb\xbfab\tc\r\nd\te\r\n") == [("ab", "c"), ("d", "e")]


def test_line_separators_other_than_newlines_are_text(read):
    assert read("a\u2028b\tc\x0bd\n".encode()) == [("a\u2028b", "c\x0bd")]


def test_a_pair_knows_its_file_and_line(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("ab\tc\nd\te\n")

    pairs = build_source(SETTINGS | {"test": str(path)}).pairs("test")

    assert [pair.place for pair in pairs] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\tc\nab c\n", "{path}:2: data.target_column=2, but the line has 1 column; columns are separated by tabs"),
        (b"ab\tc\n\n", "{path}:2: the source (column 1) is empty"),
        (b"\tc\n", "{path}:1: the source (column 1) is empty; it needs at least one token"),
        (b"ab\t \n", "{path}:1: the target (column 2) is empty"),
        (b"  \tc\n", "{path}:1: the source (column 1) is empty"),
        (b"ab\tc\nab\xff\tc\n", "{path}:2: byte 3 of the line, 0xff, is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfab\xff\tc\n", "{path}:1: byte 6 of the line, 0xff, is not UTF-8"),
        (b"", "{path}: the file is empty; data.test needs at least one line"),
    ],
)
def test_a_bad_line_is_refused_with_its_place(read, tmp_path, content, message):
    with pytest.raises(UserError, match=re.escape(message.format(path=tmp_path / "pairs.tsv"))):
        read(content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abcdefghij\tc", "{path}:2: the source (column 1) has 10 tokens; data.max_length=9 allows 9"),
        ("ab\tc c c c c c c c c c", "{path}:2: the target (column 2) has 10 tokens; data.max_length=9 allows 9"),
    ],
)
def test_a_text_with_too_many_tokens_is_refused_with_its_place(tmp_path, line, message):
    path = tmp_path / "pairs.tsv"
    path.write_text(f"abcdefghi\tc c c c c c c c c\n{line}\n")

    with pytest.raises(UserError, match=re.escape(message.format(path=path))):
        prepare(build_source(SETTINGS | {"train": str(path)}), ["train"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_column": 0}, "data.source_column=0 must be a whole number of at least 1"),
        ({"target_column": 1}, "data.target_column=1 must differ from data.source_column=1"),
    ],
)
def test_impossible_columns_are_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        build_source(SETTINGS | changes)


def test_a_file_that_is_not_given_is_named():
    with pytest.raises(UserError, match=r"data\.val is missing: give a tab-separated file, data\.val=FILE"):
        next(build_source(SETTINGS).pairs("val"))


def test_a_file_that_does_not_exist_is_named(tmp_path):
    missing = tmp_path / "missing.tsv"

    with pytest.raises(UserError, match=f"data.train={missing} cannot be read: No such file"):
        next(build_source(SETTINGS | {"train": str(missing)}).pairs("train"))


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        next(build_source(SETTINGS | {"train": str(tmp_path)}).pairs("train"))


def test_paths_are_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert build_source(SETTINGS | {"test": "a.tsv"}).to_dict()["test"] == str(tmp_path / "a.tsv")
