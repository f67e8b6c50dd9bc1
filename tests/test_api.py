"""Predictions: one for each line, in order, from a checkpoint alone."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY

from seq2seq.api import Predictor, load
from seq2seq.checkpoint import load_model
from seq2seq.commands.train import train
from seq2seq.data import BOS, EOS
from seq2seq.decoding import Beam, Greedy
from seq2seq.errors import UserError

KEPT = ROOT / "tests" / "checkpoints" / "format1.ckpt"
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
    limited = Predictor([load_model(str(tiny_checkpoint))], search=Greedy(max_length=1))

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
    beam = Beam(8, beam_size=5, n_best=3, normalisation="gnmt", alpha=0.6)
    predictor = Predictor([load_model(str(tiny_checkpoint))], search=beam)

    found = predictor.n_best(LINES)

    assert [len(hypotheses) for hypotheses in found] == [3] * len(LINES)
    assert found[1] == [("", 0.0, [], 0.0)] * 3  # an empty line
    assert [hypotheses[0].text for hypotheses in found] == predictor(LINES)
    assert all(hypothesis.log_prob < 0 for hypothesis in found[0])
    assert len({hypothesis.text for hypothesis in found[0]}) == 3


@torch.no_grad()
def test_the_log_probability_is_that_of_the_whole_prediction_and_its_end(predictor):
    ((best,),) = predictor.n_best(["a b"])
    source = torch.tensor([predictor.tokenizers.source.encode("a b")])
    ended = [EOS] if len(best.ids) < predictor.search.max_length else []
    labels = torch.tensor([*best.ids, *ended])

    log_probs, _ = predictor.ensemble(source, torch.tensor([2]), torch.tensor([[BOS, *best.ids]])[:, : len(labels)])

    expected = log_probs[0, torch.arange(len(labels)), labels].sum()
    assert best.log_prob == pytest.approx(float(expected), abs=1e-4)


def test_an_ensemble_of_one_model_twice_is_the_model(predictor, tiny_checkpoint):
    twice = load(tiny_checkpoint, tiny_checkpoint)

    assert twice(LINES) == predictor(LINES)
    ((one,),), ((both,),) = (made.n_best(["a b c"]) for made in (predictor, twice))
    assert one.log_prob == pytest.approx(both.log_prob)


def test_an_ensemble_may_be_of_other_cells_and_sizes(compose, tiny_checkpoint, tmp_path):
    train(compose("train", *TINY, "model=lstm", "model.decoder.hidden_size=11", "model.attention=none"), tmp_path)

    both = load(tiny_checkpoint, tmp_path / "best.ckpt")

    assert len(both(LINES)) == len(LINES)
    assert both.align("a b", both.n_best(["a b"])[0][0]).weights.size(1) == 2  # of the one that has attention


def test_an_ensemble_of_other_vocabularies_is_refused(compose, tiny_checkpoint, tmp_path):
    train(compose("train", *TINY, "data.seed=9", "data.train_size=16"), tmp_path)

    with pytest.raises(UserError, match=r"checkpoint: the source vocabulary of checkpoint 2 differs from that of"):
        load(tiny_checkpoint, tmp_path / "best.ckpt")


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(UserError, match=r"checkpoint=\[\] must name at least one file"):
        load()


HEAVY = {"pytorch_lightning", "torchmetrics", "matplotlib", "onnxruntime", "seq2seq.export", "seq2seq.training"}


def modules_after(code):
    """The names of all modules that a fresh process has loaded when some code is done."""
    command = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], input="a b c\n", capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_to_load_and_predict_is_light():
    code = f"from seq2seq.api import load\nprint(*load({str(KEPT)!r})(['a b c']))"

    modules = modules_after(code)

    assert modules[:3] == ["c", "b", "a"]
    assert not HEAVY & set(modules)


def test_the_script_that_predicts_is_as_light():
    script = str(ROOT / "scripts" / "predict.py")
    code = f"import runpy\nsys.argv[1:] = ['checkpoint={KEPT}']\nrunpy.run_path({script!r}, run_name='__main__')"

    modules = modules_after(code)

    assert modules[:3] == ["c", "b", "a"]
    assert not HEAVY & set(modules)
