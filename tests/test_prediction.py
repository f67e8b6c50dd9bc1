"""Predictions: one for each line, in order, from a checkpoint alone."""

import io
import os

import pytest
import torch

from seq2seq import prediction
from seq2seq.errors import UserError
from seq2seq.prediction import load, predict, predict_lines

LINES = ["a b c", "", "d", "é z", "   ", "c b a q r"]


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint):
    return load(tiny_checkpoint)


def test_there_is_a_prediction_for_each_text_in_order(predictor):
    assert predictor(LINES) == [predictor([line])[0] for line in LINES]
    assert predictor(LINES[::-1]) == predictor(LINES)[::-1]


def test_an_empty_text_gives_an_empty_prediction(predictor):
    predictions = predictor(LINES)

    assert [predictions[row] for row in (1, 4)] == ["", ""]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_nothing(predictor, batch_size):
    assert predictor(LINES, batch_size) == predictor(LINES)


def test_no_text_at_all_is_fine(predictor):
    assert predictor([]) == []


def test_the_length_of_predictions_can_be_limited(tiny_checkpoint):
    limited = prediction.Predictor(load(tiny_checkpoint).module, max_length=1)

    assert all(len(text.split()) <= 1 for text in limited(LINES))


def test_alignment_has_a_row_for_each_token_and_the_end(predictor):
    text = "a b c d"

    alignment = predictor.align(text)

    predicted = predictor([text])[0].split()
    assert alignment.source == text.split()
    assert alignment.target[: len(predicted)] == predicted
    assert alignment.weights.shape == (len(alignment.target), 4)
    torch.testing.assert_close(alignment.weights.sum(-1), torch.ones(len(alignment.target)))


def test_a_file_of_many_chunks_keeps_its_order(predictor, monkeypatch):
    monkeypatch.setattr(prediction, "CHUNK", 2)
    output = io.StringIO()

    predict_lines(predictor, enumerate(LINES * 5), output, batch_size=3)

    assert output.getvalue() == "".join(text + "\n" for text in predictor(LINES) * 5)


def test_a_file_is_complete_or_absent(compose, tiny_checkpoint, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(b"a b\nc \xff\n")
    target.write_text("older\n")

    with pytest.raises(UserError, match=f"{source}:2: byte 3 of the line, 0xff, is not UTF-8"):
        predict(compose("predict", f"checkpoint={tiny_checkpoint}", f"input={source}", f"output={target}"))

    assert target.read_text() == "older\n"
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.txt"}


def test_a_link_stays_and_a_pipe_is_written_to(compose, tiny_checkpoint, tmp_path):
    (tmp_path / "in.txt").write_text("a b\n")
    (tmp_path / "real.txt").write_text("older\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    given = [f"checkpoint={tiny_checkpoint}", f"input={tmp_path / 'in.txt'}"]

    for name in ("link.txt", "pipe"):
        predict(compose("predict", *given, f"output={tmp_path / name}"))

    assert (tmp_path / "link.txt").is_symlink()
    assert os.read(reader, 1000).decode() == (tmp_path / "real.txt").read_text() != "older\n"
    os.close(reader)


def test_a_long_line_is_not_batched_with_many_short_ones():
    lengths = [1] * 70 + [9_000, 20_000]

    batches = list(prediction.cut_batches(list(range(72)), lengths, batch_size=64))

    assert [len(batch) for batch in batches] == [64, 6, 1, 1]
    assert [row for batch in batches for row in batch] == list(range(72))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input=none.txt"], r"input=none\.txt cannot be read: No such file or directory"),
        (["output=none/out.txt"], r"output=none/out\.txt cannot be written: No such file or directory"),
        (["output=in.txt", "input=./in.txt"], r"output=in\.txt is the input, which would be lost; give another file"),
        (["input=2024"], r"input=2024 cannot be read: No such file or directory"),
        (["device=null"], r"device=None is not available here; use auto or cpu"),
        (["device=meta"], r"device=meta is not available here; use auto or cpu"),
        (["search=null"], r"search=None must hold the keys max_length"),
        (["+foo=1"], r"foo is unknown; the keys are batch_size, checkpoint, "),
        (["device=abacus"], r"device=abacus is not available here; use auto or cpu"),
        (["batch_size=0"], r"batch_size=0 must be a whole number of at least 1"),
        (["search.max_length=0"], r"search\.max_length=0 must be a whole number of at least 1"),
    ],
)
def test_a_mistake_is_named(compose, tiny_checkpoint, tmp_path, overrides, message):
    source = tmp_path / "in.txt"
    source.write_text("a b\n")

    with pytest.raises(UserError, match=message):
        predict(compose("predict", f"checkpoint={tiny_checkpoint}", f"input={source}", *overrides))


def test_the_checkpoint_must_be_given(compose):
    with pytest.raises(UserError, match="checkpoint is missing: give checkpoint=VALUE"):
        predict(compose("predict"))
