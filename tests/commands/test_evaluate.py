"""Evaluation on other files: only the files and their columns come from the command line."""

import pytest
import torch
from torch import nn

from seq2seq.commands.evaluate import evaluate
from seq2seq.errors import UserError
from seq2seq.handoff.ablation import AlteredBridge
from seq2seq.nn import RNNState
from seq2seq.training.evaluation_data import merge_data

TRAINED = {
    "task": "tsv", "train": "a", "val": "b", "test": "c", "source_column": 2, "target_column": 1,
    "source_tokens": "characters", "target_tokens": "spaces", "min_count": 3, "batch_size": 2,
}  # fmt: skip
GIVEN = {
    **TRAINED,
    "batch_size": 1,
    "test": "d",
    "source_column": 1,
    "target_column": 2,
    "target_tokens": "characters",
    "min_count": 1,
}


def test_without_data_the_task_is_that_of_the_checkpoint():
    assert merge_data(TRAINED, None, []) == TRAINED


def test_what_the_command_line_names_replaces_the_checkpoints():
    merged = merge_data(TRAINED, GIVEN, ["data=tsv", "data.test=d"])

    assert merged == {**TRAINED, "test": "d"}  # the columns too are those of the checkpoint, as none were given


def test_another_built_in_task_is_refused():
    with pytest.raises(UserError, match="data=dates cannot be given here: the checkpoint was trained on tsv; use tsv"):
        merge_data(TRAINED, {"task": "dates"}, ["data=dates"])


def test_columns_can_be_given():
    merged = merge_data(TRAINED, GIVEN, ["data=tsv", "data.test=d", "data.source_column=1", "data.target_column=2"])

    assert (merged["source_column"], merged["target_column"]) == (1, 2)


def test_another_task_keeps_the_tokenisation_of_the_checkpoint():
    merged = merge_data({**TRAINED, "task": "reverse"}, GIVEN, ["data=tsv", "data.test=d"])

    assert merged["test"] == "d"
    assert merged["source_column"] == 1
    assert merged["target_tokens"] == "spaces"


@pytest.mark.parametrize("key", ["source_tokens", "target_tokens", "min_count", "train", "max_length"])
def test_what_the_checkpoint_fixes_cannot_be_given(key):
    with pytest.raises(UserError, match=rf"data\.{key}=.* cannot be given here: the checkpoint fixes it; what can be"):
        merge_data(TRAINED, GIVEN | {"max_length": 1}, ["data=tsv", f"data.{key}=x"])


def test_a_file_of_ones_own_is_tested(compose, tiny_checkpoint, tmp_path, caplog):
    path = tmp_path / "own.tsv"
    path.write_text("a b\tb a\nc\té\n", encoding="utf-8")
    overrides = ["data=tsv", f"data.test={path}", "trainer=cpu"]

    content = evaluate(compose("evaluate", f"checkpoint={tiny_checkpoint}", *overrides), tmp_path, overrides)

    rows = (tmp_path / "predictions.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == ["a b", "c"]
    assert content["test"]["exact_match"] <= 0.5  # é is in no vocabulary, so its row is a miss whatever is predicted
    assert "% of the target tokens are not in the vocabulary of the checkpoint" in caplog.text
    assert "source tokens" not in caplog.text


def test_a_directory_that_holds_a_run_is_refused(compose, tiny_run):
    before = (tiny_run / "metrics.json").read_bytes()

    with pytest.raises(UserError, match="already holds a run"):
        evaluate(compose("evaluate", f"checkpoint={tiny_run / 'best.ckpt'}"), tiny_run)

    assert (tiny_run / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("beam_size", [1, 3])
def test_half_precision_gives_the_same_predictions(compose, tiny_checkpoint, tmp_path, beam_size):
    def loss(precision):
        (tmp_path / precision).mkdir()
        given = [f"search.beam_size={beam_size}", f"trainer.precision={precision}", "trainer=cpu"]
        content = evaluate(compose("evaluate", f"checkpoint={tiny_checkpoint}", *given), tmp_path / precision)
        return content["test"]["loss_teacher_forced"]

    assert loss("bf16-mixed") == pytest.approx(loss("32-true"), abs=0.02)


@pytest.mark.parametrize("state", ["zeroed", "shuffled"])
def test_a_state_that_is_taken_away_is_seen_in_the_results(compose, tiny_checkpoint, tmp_path, state, caplog):
    def results(word):
        (tmp_path / word).mkdir()
        return evaluate(compose("evaluate", f"checkpoint={tiny_checkpoint}", f"state={word}"), tmp_path / word)

    kept, without = results("kept"), results(state)

    assert kept["test"]["loss_teacher_forced"] != without["test"]["loss_teacher_forced"]
    assert without["state"] == state
    assert f"state={state}: these are not the results of the model as it was trained" in caplog.text


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_zeroed_is_zero_and_shuffled_gives_every_row_the_state_of_another(cell):
    h = torch.arange(2 * 5 * 3.0).view(2, 1, 5, 3) + 1
    handed = RNNState(h, -h if cell == "lstm" else None)

    zeroed = AlteredBridge(nn.Identity(), "zeroed")(handed)
    shuffled = AlteredBridge(nn.Identity(), "shuffled")(handed)

    assert not zeroed.h.any()
    rows = [(h[0, 0] == row).all(-1).nonzero().item() for row in shuffled.h[0, 0]]
    assert sorted(rows) == list(range(5))
    assert all(given != own for own, given in enumerate(rows))
    assert torch.equal(shuffled.h, h[:, :, rows])  # all layers of a row go together
    if cell == "lstm":
        assert not zeroed.c.any()
        assert torch.equal(shuffled.c, -shuffled.h)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.n_best=2", r"search\.n_best=2 must be 1 here: only the best prediction is evaluated"),
        ("search.n_best=1e1", r"search\.n_best=10\.0 must be a whole number of at least 1"),
        ("state=gone", "state=gone must be one of kept, zeroed, shuffled"),
        ("search.max_length=abc", r"search\.max_length=abc must be a whole number"),
        ("search.max_length=0", r"search\.max_length=0 must be a whole number of at least 1"),
        ("trainer.precision=17", r"trainer\.precision=17 must be one of "),
        ("trainer.accelerator=abacus", r"trainer: You selected an invalid accelerator name: `accelerator='abacus'`"),
        ("device=cpu", r"device=cpu is the trainer's here: give trainer=cpu, or trainer=gpu and trainer.devices"),
        ("precision=bf16-mixed", r"precision=bf16-mixed is the trainer's here: give trainer\.precision"),
        ("trainer.max_epochs=3", r"trainer\.max_epochs is for training; what can be given here is accelerator, "),
        ("+trainer.callbacks=[]", r"trainer\.callbacks is for training; what can be given here is accelerator, "),
        ("+foo=1", "foo is unknown; the keys are checkpoint, data, metrics, parts, search, state, threads, trainer, "),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(compose, tiny_checkpoint, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        evaluate(compose("evaluate", f"checkpoint={tiny_checkpoint}", override), tmp_path, [override])


def test_a_mistake_in_the_file_is_named(compose, tiny_checkpoint, tmp_path):
    path = tmp_path / "own.tsv"
    path.write_text("a b\n")
    overrides = ["data=tsv", f"data.test={path}"]

    with pytest.raises(UserError, match=rf"{path}:1: data\.target_column=2, but the line has 1 column;"):
        evaluate(compose("evaluate", f"checkpoint={tiny_checkpoint}", *overrides), tmp_path, overrides)
