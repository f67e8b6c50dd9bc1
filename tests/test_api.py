"""Predictions: one for each line, in order, from a checkpoint alone."""

import math

import pytest
import torch
from conftest import TINY

from seq2seq import api as prediction
from seq2seq.api import Predictor, load
from seq2seq.commands.train import train
from seq2seq.decoding.beam import LengthNormalisation
from seq2seq.decoding.search import Search
from seq2seq.errors import UserError
from seq2seq.training.checkpoints import load_module

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
    limited = Predictor([load_module(str(tiny_checkpoint))], search=Search(max_length=1))

    assert all(len(text.split()) <= 1 for text in limited(LINES))


def test_alignment_has_a_row_for_each_token_and_the_end(predictor):
    text = "a b c d"

    ((best,),) = predictor.n_best([text])

    alignment = predictor.align(text, best)

    predicted = predictor([text])[0].split()
    assert alignment.source == text.split()
    assert alignment.target[: len(predicted)] == predicted
    assert alignment.weights.shape == (len(alignment.target), 4)
    torch.testing.assert_close(alignment.weights.sum(-1), torch.ones(len(alignment.target)))


def test_n_best_are_in_order_and_the_first_is_the_best(tiny_checkpoint):
    beam = Search(8, n_best=3, beam_size=5, normalisation=LengthNormalisation("gnmt", 0.6))
    predictor = Predictor([load_module(str(tiny_checkpoint))], search=beam)

    found = predictor.n_best(LINES)

    assert [len(hypotheses) for hypotheses in found] == [3] * len(LINES)
    assert found[1] == [("", 0.0, [])] * 3  # an empty line
    assert [hypotheses[0].text for hypotheses in found] == predictor(LINES)
    assert all(hypothesis.log_prob < 0 for hypothesis in found[0])
    assert len({hypothesis.text for hypothesis in found[0]}) == 3


def test_log_probabilities_are_there_if_they_are_asked_for(predictor):
    ((unasked,),), ((asked,),) = predictor.n_best(["a b"]), predictor.n_best(["a b"], scored=True)

    assert math.isnan(unasked.log_prob)
    assert asked.log_prob < 0
    assert asked.text == unasked.text


def test_an_ensemble_of_one_model_twice_is_the_model(predictor, tiny_checkpoint):
    twice = load(tiny_checkpoint, tiny_checkpoint)

    assert twice(LINES) == predictor(LINES)
    ((one,),), ((both,),) = (made.n_best(["a b c"], scored=True) for made in (predictor, twice))
    assert one.log_prob == pytest.approx(both.log_prob)


def test_an_ensemble_may_be_of_other_cells_and_sizes(compose, tiny_checkpoint, tmp_path):
    train(compose("train", *TINY, "model=lstm", "model.decoder.hidden_size=11", "model.attention=none"), tmp_path)

    both = load(tiny_checkpoint, tmp_path / "best.ckpt")

    assert len(both(LINES)) == len(LINES)
    assert both.align("a b", both.n_best(["a b"])[0][0]).weights.size(1) == 2  # of the one that has attention


def test_an_ensemble_of_other_vocabularies_is_refused(compose, tiny_checkpoint, tmp_path):
    train(compose("train", *TINY, "data.seed=9", "data.train_size=16"), tmp_path)

    with pytest.raises(
        UserError, match=r"checkpoint: the source vocabulary of the 2\. checkpoint differs from that of"
    ):
        load(tiny_checkpoint, tmp_path / "best.ckpt")


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(UserError, match=r"checkpoint=\[\] must name at least one file"):
        load()


def test_a_long_line_is_not_batched_with_many_short_ones():
    lengths = [1] * 70 + [9_000, 20_000]

    batches = list(prediction.cut_batches(list(range(72)), lengths, batch_size=64))

    assert [len(batch) for batch in batches] == [64, 6, 1, 1]
    assert [row for batch in batches for row in batch] == list(range(72))
