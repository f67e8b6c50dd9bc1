"""Files as users have them: several columns, aligned, packed, damaged."""

import gzip
import os
import re
import zlib

import pytest

from seq2seq.data import build_source, prepare
from seq2seq.errors import UserError

COMMON = {
    "train": None, "val": None, "test": None, "source_tokens": "characters", "target_tokens": "characters",
    "min_count": 1, "max_length": 9, "batch_size": 8, "max_epochs": 1, "num_workers": 0,
}  # fmt: skip
TSV = COMMON | {"task": "tsv", "source_column": 1, "target_column": 2}
PARALLEL = COMMON | {"task": "parallel"}
CMUDICT = {key: value for key, value in COMMON.items() if key not in ("train", "val", "test")} | {
    "task": "cmudict", "file": None, "val_share": 0.25, "test_share": 0.25, "stress": False, "seed": 0,
    "target_tokens": "spaces",
}  # fmt: skip


def texts(settings, split="test"):
    return [(pair.source, pair.target) for pair in build_source(settings).pairs(split)]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_bytes(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_bytes


def test_several_columns_are_one_source_each_with_its_own_tokens(write):
    path = write("a.tsv", "ház\tházat\tN;ACC\n")
    tokens = ["characters", {"name": "split", "separator": ";"}]

    data = prepare(build_source(TSV | {"train": path, "source_column": [1, 3], "source_tokens": tokens}), ["train"])

    symbols = data.tokenizers.source.vocabulary.tokens(data.datasets["train"].sources[0])
    assert symbols == ["h", "á", "z", "\tN", "\tACC"]  # a feature differs from the letter N
    assert data.tokenizers.source.decode(data.datasets["train"].sources[0]) == "ház\tN;ACC"


def test_gzip_is_unpacked_whatever_the_name(write):
    path = write("a.tsv", gzip.compress(b"ab\tc\nd\te\n"))

    assert texts(TSV | {"test": path}) == [("ab", "c"), ("d", "e")]


def test_a_pattern_stands_for_its_files_in_order(write):
    write("b.tsv", "b\t2\n")
    write("a.tsv", "a\t1\n")
    last = write("0.txt", "c\t3\n")

    assert texts(TSV | {"test": "*.tsv"}) == [("a", "1"), ("b", "2")]
    assert texts(TSV | {"test": ["*.tsv", last]}) == [("a", "1"), ("b", "2"), ("c", "3")]
    with pytest.raises(UserError, match=r"data\.test=.*/x\*\.tsv matches no file"):
        texts(TSV | {"test": "x*.tsv"})


def test_headers_and_comments_are_skipped_by_option(write):
    path = write("a.tsv", "word\tsound\n# a comment\nab\tc\n")

    assert texts(TSV | {"test": path, "header": True, "comment": "#"}) == [("ab", "c")]
    with pytest.raises(UserError, match=r"a\.tsv:2: data\.target_column=2, but the line has 1 column"):
        texts(TSV | {"test": path})


@pytest.mark.parametrize(("first", "warned"), [("word\tsound", 0), ("Word\tPronunciation", 1), ("word\tw ɜ d", 0)])
def test_a_first_line_that_names_columns_gets_a_hint(write, caplog, first, warned):
    path = write("a.tsv", f"{first}\nsource\ttarget\n")

    texts(TSV | {"test": path})
    texts(TSV | {"test": path})

    assert (
        caplog.text.count(f"{path}:1: {first!r} looks like a header and is read as a pair; data.header=true") == warned
    )


def test_targets_of_equal_sources_are_references_of_one_pair_outside_training(write):
    path = write("a.tsv", "ab\tx\nc\ty\nab\tz\nab\tx\n")
    source = build_source(TSV | {"train": path, "test": path, "merge_references": True})

    assert [pair.references for pair in source.pairs("test")] == [["x", "z"], ["y"]]
    assert len(list(source.pairs("train"))) == 4


def test_the_references_of_a_pair_are_its_target_and_the_alternatives(write):
    path = write("a.tsv", "ab\tx\nc\ty\nab\tzx\n")
    data = prepare(build_source(TSV | {"train": path, "test": path, "merge_references": True}), ["test"])
    ids = data.tokenizers.target.encode

    references = data.references("test", [1, 0])

    assert references.texts == [["y"], ["x", "zx"]]
    assert references.ids == [[ids("y")], [ids("x"), ids("zx")]]


def test_line_n_of_one_file_belongs_to_line_n_of_the_other(write):
    source, target, more = write("s", "ab\nc\n"), write("t", "x\ny z\n"), write("u", "x\nw\n")
    pairs = list(build_source(PARALLEL | {"test": [source, target, more]}).pairs("test"))

    assert [(pair.source, pair.references) for pair in pairs] == [("ab", ["x", "x"]), ("c", ["y z", "w"])]
    assert pairs[1].place == f"{source}:2"


@pytest.mark.parametrize("order", [["s", "t"], ["t", "s"]])
def test_aligned_files_of_unequal_length_are_refused_with_both_counts(write, order):
    counts = {write("s", "a\nb\nc\n"): 3, write("t", "x\n"): 1}

    with pytest.raises(UserError) as error:
        texts(PARALLEL | {"test": order})

    assert all(f"{path} has {count}" in str(error.value) for path, count in counts.items())


def test_aligned_files_are_a_list():
    with pytest.raises(UserError, match=r"data\.test=.*/s must be a list: two files, data\.test=\[SOURCES,TARGETS\]"):
        build_source(PARALLEL | {"test": "s"})
    with pytest.raises(UserError, match=r"data\.train=.* must be a list: two files"):
        build_source(PARALLEL | {"train": ["s", "t", "u"]})


def test_invalid_training_pairs_are_skipped_by_option_and_counted(write, caplog):
    path = write("a.tsv", "ab\tc\n\tx\nabcdefghij\tx\nd\te\n")

    source = build_source(TSV | {"train": path, "test": path, "skip_invalid": True})
    data = prepare(source, ["train"])

    assert len(data.datasets["train"]) == 2
    assert "2 training pairs are empty or too long" in caplog.text
    with pytest.raises(UserError, match=r"a\.tsv:2: the source"):  # never in test
        prepare(source, ["test"])


def test_only_the_first_training_pairs_are_used_by_option(write):
    path = write("a.tsv", "a\t1\nb\t2\nc\t3\n")
    settings = TSV | {"train": path, "test": path, "max_pairs": 2}

    assert texts(settings, "train") == [("a", "1"), ("b", "2")]
    assert len(texts(settings)) == 3


def test_pronunciations_of_a_word_stay_together(write):
    lines = "".join(f"{word} A{n}1\n{word}(2) B # a remark\n{word}(3) B\n" for n, word in enumerate("abcdefgh"))
    source = build_source(CMUDICT | {"file": write("dict", ";;; comment\n" + lines)})
    splits = {split: list(source.pairs(split)) for split in ("train", "val", "test")}

    words = {split: {pair.source for pair in pairs} for split, pairs in splits.items()}
    assert {split: len(found) for split, found in words.items()} == {"train": 4, "val": 2, "test": 2}
    assert set.union(*words.values()) == set("abcdefgh")
    assert len(splits["train"]) == 8  # the third pronunciation equals the second
    assert all(len(pair.references) == 2 for pair in splits["val"] + splits["test"])
    assert not any("1" in pair.target for pair in splits["train"])  # no stress


def test_a_comment_that_every_line_starts_with_is_refused():
    with pytest.raises(UserError, match=r"data\.comment='' must be the text that comments start with"):
        build_source(TSV | {"comment": ""})


def test_a_dictionary_needs_a_file_and_nothing_else(write):
    with pytest.raises(UserError, match=r"data\.file is missing: give a CMUdict file, data\.file=PATH"):
        texts(CMUDICT)
    with pytest.raises(UserError, match=r"data\.train=x must be null"):
        build_source(CMUDICT | {"train": "x"})
    with pytest.raises(UserError, match=r"data\.file=.*/none cannot be read: No such file"):
        texts(CMUDICT | {"file": "none"})
    with pytest.raises(UserError, match="dict:2: the line has a word and no phonemes"):
        texts(CMUDICT | {"file": write("dict", "a B\nc\n")})


PACKED = gzip.compress(b"".join(f"{number}\tx\n".encode() for number in range(5000)), mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\tc\rd\te\r", "a.tsv:1: a carriage return in the middle of the line; save the file with line ends LF"),
        (
            b"ab\tc\n" + b"d\te\r" * 300_000,
            "a.tsv:2: the line has more than 1000000 bytes; save the file with line ends",
        ),
        (b"ab\tc\n" + b"d" * 1_000_001, "a.tsv:2: the line has more than 1000000 bytes"),
        (b"ab\tc\nd\0\te\n", "a.tsv:2: the line contains NUL, so the file is damaged or no UTF-8 text"),
        (b"ab\tc\n" + "é\té\n".encode("latin-1"), "a.tsv:2: byte 1 of the line, 0xe9, is not UTF-8"),
        ("ab\tc\n".encode("utf-16"), "a.tsv:1: byte 1 of the line, 0xff, is not UTF-8"),
        (PACKED[:-100], "the gzip file is damaged or incomplete from here on"),
        (PACKED[:200] + b"\xff" * 50 + PACKED[250:], "the gzip file is damaged or incomplete from here on"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(write, content, message):
    path = write("a.tsv", content)

    with pytest.raises(UserError, match=re.escape(message)) as error:
        texts(TSV | {"test": path})

    assert re.match(re.escape(path) + r":\d+: ", str(error.value))


def test_a_missing_column_far_into_a_file_is_found(write):
    path = write("a.tsv", "a\tb\n" * 71_233 + "a b\n" + "a\tb\n")

    with pytest.raises(UserError, match=r"a\.tsv:71234: data\.target_column=2, but the line has 1 column"):
        texts(TSV | {"test": path})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer

    with pytest.raises(UserError, match="must be a file, and not a pipe or a device"):
        texts(TSV | {"test": str(tmp_path / "pipe")})


def test_a_file_that_changes_while_it_is_read_is_refused(write):
    path = write("a.tsv", "a\tb\n" * 10)
    pairs = build_source(TSV | {"test": path}).pairs("test")
    next(pairs)
    write("a.tsv", "a\tb\n" * 20)

    with pytest.raises(UserError, match=r"a\.tsv changed while it was read"):
        list(pairs)


def test_a_read_error_in_the_middle_names_the_line(write, monkeypatch):
    path = write("a.tsv", gzip.compress(b"a\tb\n"))

    def fail(*_):
        raise zlib.error

    monkeypatch.setattr(gzip.GzipFile, "read1", fail)
    monkeypatch.setattr(gzip.GzipFile, "readinto", fail)

    with pytest.raises(UserError, match=r"a\.tsv:1: the gzip file is damaged"):
        texts(TSV | {"test": path})


SPLIT = {"source_tokens": {"name": "split", "separator": ";"}}


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("lines", [";\tx\n", "b\tx\n;\tx\n"])
def test_a_text_without_tokens_is_refused_with_its_place(write, split, lines):
    path, good = write("a.tsv", lines), write("good.tsv", "b\tx\n")
    source = build_source(TSV | SPLIT | {"train": good, split: path})
    place = rf"a\.tsv:{lines.count(chr(10))}: the source \(column 1\) has no tokens; it needs at least one"

    with pytest.raises(UserError, match=place):
        prepare(source, [split])


def test_a_training_pair_without_tokens_is_skipped_by_option(write):
    path = write("a.tsv", "b\tx\n;\tx\n")
    source = build_source(TSV | SPLIT | {"train": path, "test": path, "skip_invalid": True})

    assert len(prepare(source, ["train"]).datasets["train"]) == 1
    with pytest.raises(UserError, match=r"a\.tsv:2: the source \(column 1\) has no tokens"):
        prepare(source, ["test"])


def test_a_further_reference_without_tokens_is_refused(write):
    path = write("a.tsv", "b\tx\nb\t;\n")
    tokens = {"target_tokens": SPLIT["source_tokens"], "merge_references": True}

    with pytest.raises(UserError, match=r"a\.tsv:1: the target \(column 2\) has no tokens"):
        prepare(build_source(TSV | tokens | {"train": write("t.tsv", "b\tx\n"), "test": path}), ["test"])


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux")  # noqa: PTH110 - no object is needed
def test_a_file_whose_first_read_fails_is_refused():
    with pytest.raises(UserError, match=r"data\.test=/proc/self/mem cannot be read: Input/output error"):
        texts(TSV | {"test": "/proc/self/mem"})
