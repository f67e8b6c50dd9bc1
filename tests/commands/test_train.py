"""A run from config to files: what it leaves behind, what it refuses, and how it resumes."""

import csv
import json
import multiprocessing
import os
import re
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from conftest import TINY
from torchmetrics.functional.text import word_error_rate

from seq2seq.checkpoint import load_model
from seq2seq.commands.evaluate import evaluate
from seq2seq.commands.train import describe, describe_optimizer, train, train_and_score
from seq2seq.errors import Stopped, UserError
from seq2seq.metrics import ExactMatch
from seq2seq.resuming.continuing import Start
from seq2seq.training.module import Seq2SeqModule

METRICS = {
    "exact_match", "symbol_error_rate", "loss_teacher_forced", "perplexity_teacher_forced",
    "token_accuracy_teacher_forced",
}  # fmt: skip


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def losses(output_dir):
    return [row["train/loss"] for row in read_rows(output_dir / "metrics.csv") if row["train/loss"]]


def test_a_run_leaves_its_results_and_nothing_half_written(tiny_run):
    files = {path.name for path in tiny_run.iterdir()}

    assert files == {
        "config.yaml", "overrides.yaml", "hparams.yaml", "metrics.csv", "metrics.json", "predictions.tsv", "best.ckpt",
        "last.ckpt", "learning_curves.png", "handoff.png", "attention_1.png", "attention_2.png", "attention_3.png",
        "attention_4.png",
    }  # fmt: skip
    assert not any(set(name) & set("=, ") for name in files)


def test_matrices_are_multiplied_in_the_given_precision_in_training_and_exactly_afterwards(
    compose, tmp_path, monkeypatch
):
    seen = []

    def spy_on(owner, name, label):
        method = getattr(owner, name)

        def spy(*arguments, **keywords):
            seen.append((label, torch.get_float32_matmul_precision()))
            return method(*arguments, **keywords)

        monkeypatch.setattr(owner, name, spy)

    spy_on(Seq2SeqModule, "training_step", "training")
    spy_on(Seq2SeqModule, "test_step", "test")

    train(compose("train", *TINY, "matmul_precision=medium"), tmp_path)

    assert set(seen) == {("training", "medium"), ("test", "highest")}
    assert torch.get_float32_matmul_precision() == "highest"


def test_metrics_json_holds_both_splits_and_where_the_best_checkpoint_is(tiny_run):
    content = json.loads((tiny_run / "metrics.json").read_text())

    assert set(content) == {"validation", "test", "handoff", "monitor", "parameters", "seconds", "best_checkpoint"}
    assert set(content["validation"]) == set(content["test"]) == METRICS
    assert content["best_checkpoint"] == str(tiny_run / "best.ckpt")
    assert content["parameters"] == 3_122


def test_predictions_are_in_the_order_of_the_data(tiny_run):
    lines = (tiny_run / "predictions.tsv").read_text().splitlines()

    rows = [line.split("\t") for line in lines[1:]]
    assert lines[0].split("\t") == ["source", "prediction", "reference", "correct", "group"]
    assert len(rows) == 7
    assert all(row[2] == row[0][::-1] for row in rows)
    assert all((row[1] == row[2]) == (row[3] == "1") for row in rows)


def test_validation_is_logged_under_names_that_say_how_it_was_decoded(tiny_run):
    columns = set(read_rows(tiny_run / "metrics.csv")[0])

    assert columns >= {f"val/{name}" for name in METRICS} | {"train/loss", "train/lr", "step", "epoch"}


def test_the_config_is_kept_resolved(tiny_run):
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())

    assert config["data"]["task"] == "reverse"
    assert config["trainer"]["max_epochs"] == 1
    assert "${" not in (tiny_run / "config.yaml").read_text()


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(compose, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(compose("train", *TINY, f"seed={seed}"), tmp_path / name)

    assert len(losses(tmp_path / "a")) == 3
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize(("workers", "dropout"), [(0, 0.3), (1, 0.0)])
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(compose, tmp_path, workers, dropout):
    settings = [*TINY, "trainer.max_epochs=4", f"data.num_workers={workers}", f"model.dropout={dropout}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(compose("train", *settings), whole)
    stop_after(compose("train", *settings), epochs=2, output_dir=parts)

    train(compose("train", *settings, f"resume={parts / 'last.ckpt'}"), parts)

    assert losses(parts) == losses(whole)
    assert len(losses(whole)) == 12
    one, other = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_logged_after_the_checkpoint_is_logged_anew(compose, tmp_path):
    # A run that is killed in mid-epoch has logged steps that its checkpoint does not know.
    train(compose("train", *TINY), tmp_path)
    columns = read_rows(tmp_path / "metrics.csv")[0]
    with (tmp_path / "metrics.csv").open("a") as file:
        csv.DictWriter(file, columns).writerow({"epoch": 1, "step": 3, "train/loss": 99.0})

    train(compose("train", *TINY, "trainer.max_epochs=2", f"resume={tmp_path / 'last.ckpt'}"), tmp_path)

    steps = [row["step"] for row in read_rows(tmp_path / "metrics.csv") if row["train/loss"]]
    assert steps == ["0", "1", "2", "3", "4", "5"]
    assert "99.0" not in losses(tmp_path)


def test_a_run_that_resumes_elsewhere_takes_its_best_checkpoint_along(compose, tmp_path, exact_match):
    first, second = tmp_path / "first", tmp_path / "second"
    exact_match[:] = [0.5, 0.4]
    train(compose("train", *TINY), first)

    content = train(compose("train", *TINY, "trainer.max_epochs=3", f"resume={first / 'last.ckpt'}"), second)

    assert content["best_checkpoint"] == str(second / "best.ckpt")
    assert (second / "best.ckpt").read_bytes() == (first / "best.ckpt").read_bytes()
    assert epoch_of(second / "last.ckpt") == 2


def test_a_run_that_was_moved_keeps_its_best_checkpoint(compose, tmp_path, exact_match):
    exact_match[:] = [0.5, 0.4]
    train(compose("train", *TINY), tmp_path / "first")
    moved = (tmp_path / "first").rename(tmp_path / "moved")

    train(compose("train", *TINY, "trainer.max_epochs=3", f"resume={moved / 'last.ckpt'}"), moved)

    assert epoch_of(moved / "best.ckpt") == 0


def test_a_resumed_run_may_be_more_patient(compose, tmp_path, exact_match):
    exact_match[:] = [0.5]
    settings = [*TINY, "trainer.max_epochs=6"]
    train(compose("train", *settings, "callbacks.early_stopping.patience=1"), tmp_path)
    resume = f"resume={tmp_path / 'last.ckpt'}"

    train(compose("train", *settings, "callbacks.early_stopping.patience=50", resume), tmp_path)

    assert epoch_of(tmp_path / "last.ckpt") == 5


def test_what_else_changes_at_a_resume_is_logged(compose, tmp_path, tiny_run, caplog):
    changed = ["trainer.max_epochs=2", "label_smoothing=0.3", f"resume={tiny_run / 'last.ckpt'}"]

    train(compose("train", *TINY, *changed), tmp_path)

    assert "label_smoothing=0.3 from here on; it was 0.0" in caplog.text


@pytest.mark.parametrize(
    ("processes", "threads", "end"), [(1, 1, "SGD(lr=0.5)"), (1, 3, "SGD(lr=0.5), 3 threads"), (2, 1, "2 processes")]
)
def test_a_run_says_how_many_processes_and_threads_compute(monkeypatch, processes, threads, end):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    tokenizers = SimpleNamespace(sizes=lambda: {"source": 4, "target": 5})
    data = SimpleNamespace(tokenizers=tokenizers, datasets={"train": range(6)})

    module = torch.nn.Linear(1, 1)
    module.make_optimizer = partial(torch.optim.SGD, lr=0.5)

    line = describe(SimpleNamespace(world_size=processes), module, data)

    assert line.startswith("6 training pairs, 4 source and 5 target symbols")
    assert line.endswith(end)


def test_an_optimizer_without_a_learning_rate_says_which_it_has():
    assert describe_optimizer(partial(torch.optim.Adagrad)) == "Adagrad(lr=0.01)"
    assert describe_optimizer(partial(torch.optim.SGD, momentum=0.9)) == "SGD(lr=0.001)"


def test_another_number_of_threads_which_changes_the_last_digits_is_logged(compose, tmp_path, tiny_run, caplog):
    saved = torch.load(tiny_run / "last.ckpt", weights_only=True)
    assert saved["seq2seq_config"]["threads"] == torch.get_num_threads() == 1
    saved["seq2seq_config"]["threads"] = 5
    torch.save(saved, tmp_path / "five.ckpt")

    train(compose("train", *TINY, "trainer.max_epochs=2", f"resume={tmp_path / 'five.ckpt'}"), tmp_path / "run")

    assert "threads=1 from here on; it was 5" in caplog.text


def test_resuming_into_the_directory_of_another_run_is_refused(compose, tmp_path, tiny_run):
    train(compose("train", *TINY), tmp_path)
    before = (tmp_path / "best.ckpt").read_bytes()

    with pytest.raises(UserError, match=f"hydra.run.dir={tmp_path} already holds a run"):
        train(compose("train", *TINY, "trainer.max_epochs=2", f"resume={tiny_run / 'last.ckpt'}"), tmp_path)

    assert (tmp_path / "best.ckpt").read_bytes() == before


def enter(output_dir, **settings):
    trainer = pl.Trainer(accelerator="cpu", logger=False)
    return Start(output_dir, settings | {"resume": None}).entered(trainer, [])


def test_of_two_runs_that_start_at_once_one_gets_the_directory(tmp_path):
    with (
        enter(tmp_path, seed=1),
        pytest.raises(UserError, match=r"is in use by another run; choose another directory$"),
    ):
        enter(tmp_path, seed=2).__enter__()

    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"seed": 1, "resume": None}


def test_a_process_that_a_run_has_forked_does_not_keep_its_lock(tmp_path):
    # As a worker does that outlives its run.
    with enter(tmp_path, seed=1):
        processes = multiprocessing.get_context("fork")
        runs = processes.Event()
        worker = processes.Process(target=lambda: (runs.set(), time.sleep(100)), daemon=True)
        worker.start()
        assert runs.wait(timeout=60)
    try:
        with enter(tmp_path, seed=2):
            assert worker.is_alive()
    finally:
        worker.kill()


def test_a_directory_in_which_nothing_was_kept_yet_is_free(compose, tmp_path):
    with enter(tmp_path, seed=1):
        pass  # killed before its first checkpoint

    train(compose("train", *TINY), tmp_path)


def test_an_interrupted_resume_leaves_no_results_of_other_checkpoints(compose, tmp_path):
    train(compose("train", *TINY), tmp_path)

    stop_after(compose("train", *TINY, "trainer.max_epochs=3", f"resume={tmp_path / 'last.ckpt'}"), 2, tmp_path)

    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "predictions.tsv").exists()


@pytest.mark.parametrize("end", ["+trainer.max_time='00:00:00:00'", "trainer.max_steps=2", "trainer.max_epochs=0"])
def test_a_run_that_ends_before_its_first_validation_says_so(compose, tmp_path, end):
    with pytest.raises(UserError, match=r"^trainer: training ended before its first validation, so"):
        train(compose("train", *TINY, end), tmp_path)


def test_steps_are_counted_in_gathered_batches(compose, tmp_path):
    # Three batches in steps of two: an epoch is two steps, so two of them reach its validation.
    train(compose("train", *TINY, "+trainer.accumulate_grad_batches=2", "trainer.max_steps=2"), tmp_path)

    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 2


def test_a_picture_that_cannot_be_drawn_costs_no_results(compose, tmp_path, monkeypatch, caplog):
    def draw(*_):
        raise RuntimeError("expected scalar type Float but found Double")

    monkeypatch.setattr("seq2seq.training.results.draw_handoff", draw)

    train(compose("train", *TINY), tmp_path)

    assert (tmp_path / "metrics.json").exists()
    assert "handoff.png is not drawn: expected scalar type Float but found Double" in caplog.text


def test_results_are_kept_if_nobody_reads_what_is_printed(compose, tmp_path, monkeypatch):
    def write(*_):
        raise BrokenPipeError

    monkeypatch.setattr("seq2seq.training.results.show_metrics", write)

    with pytest.raises(BrokenPipeError):
        train(compose("train", *TINY), tmp_path)

    assert {"metrics.json", "predictions.tsv", "attention_1.png"} <= {path.name for path in tmp_path.iterdir()}


def test_steps_alone_may_end_a_run(compose, tmp_path):
    train(compose("train", *TINY, "~trainer.max_epochs", "trainer.max_steps=3"), tmp_path)

    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_a_scheduler_of_pytorch_that_takes_total_steps_works(compose, tmp_path):
    one_cycle = ["scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "~scheduler.warmup", "+scheduler.max_lr=0.1"]

    train(compose("train", *TINY, *one_cycle), tmp_path)

    rates = [float(row["train/lr"]) for row in read_rows(tmp_path / "metrics.csv") if row["train/lr"]]
    assert rates[0] < 0.1 > rates[-1]
    assert max(rates) > 0.05


def test_validating_every_other_epoch_is_fine(compose, tmp_path):
    train(compose("train", *TINY, "trainer.max_epochs=2", "+trainer.check_val_every_n_epoch=2"), tmp_path)

    assert epoch_of(tmp_path / "best.ckpt") == 1


def test_results_of_part_of_the_data_are_labelled(compose, tmp_path, capsys):
    limits = ["trainer.limit_train_batches=2", "trainer.limit_val_batches=2", "trainer.limit_test_batches=1"]

    content = train(compose("train", *TINY, "data.val_size=40", "data.test_size=40", *limits), tmp_path)

    parts = {split: content[split]["part"] for split in ("training", "validation", "test")}
    assert parts == {"training": "2 of 3 batches", "validation": "2 of 3 batches", "test": "1 of 3 batches"}
    assert "(1 of 3 batches)" in capsys.readouterr().out
    assert (tmp_path / "predictions.tsv").read_text().count("\n") == 1 + 16  # a header and a batch


def test_results_of_all_data_are_not_labelled(tiny_run):
    assert "part" not in (tiny_run / "metrics.json").read_text()


def test_the_monitored_metric_selects_the_best_checkpoint(compose, tmp_path, exact_match):
    exact_match[:] = [0.9, 0.1, 0.1]  # the loss, which is monitored, falls all the same
    monitor = ["monitor=val/loss_teacher_forced", "monitor_mode=min", "trainer.max_epochs=3"]

    content = train(compose("train", *TINY, *monitor), tmp_path)

    assert epoch_of(tmp_path / "best.ckpt") == 2
    assert content["monitor"] == "val/loss_teacher_forced"


def test_an_exact_match_of_zero_does_not_choose_when_another_metric_is_monitored(compose, tmp_path, exact_match):
    exact_match[:] = [0.0]
    monitor = ["monitor=val/symbol_error_rate", "monitor_mode=min", "callbacks.early_stopping.patience=1"]

    train(compose("train", *TINY, *monitor, "trainer.max_epochs=4", "optimizer.lr=0"), tmp_path)

    assert epoch_of(tmp_path / "last.ckpt") == 1  # nothing improves, so patience ends after the second validation


def test_a_sweeper_gets_the_optimized_metric(compose, tmp_path):
    value = train_and_score(compose("train", *TINY, "optimized_metric=test/symbol_error_rate"), tmp_path)

    assert value == json.loads((tmp_path / "metrics.json").read_text())["test"]["symbol_error_rate"]


def test_test_metrics_reach_the_logger_and_those_of_the_best_epoch_have_names_of_their_own(tiny_run):
    rows = read_rows(tiny_run / "metrics.csv")
    content = json.loads((tiny_run / "metrics.json").read_text())

    logged = {name: float(row[name]) for row in rows for name in row if row[name]}
    assert logged["test/exact_match"] == pytest.approx(content["test"]["exact_match"])
    assert logged["best_val/loss_teacher_forced"] == pytest.approx(content["validation"]["loss_teacher_forced"])
    assert sum(bool(row["val/exact_match"]) for row in rows) == 1  # one validation in training


def test_without_callbacks_the_final_weights_are_tested(compose, tmp_path):
    content = train(compose("train", *TINY, "callbacks=none"), tmp_path)

    assert content["best_checkpoint"] is None
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_overfitted_run_sees_the_same_batches_in_every_epoch(compose, tmp_path, monkeypatch):
    seen = []
    step = Seq2SeqModule.training_step
    monkeypatch.setattr(
        Seq2SeqModule, "training_step",
        lambda self, batch, index: seen.append(batch.indices.tolist()) or step(self, batch, index),
    )  # fmt: skip

    train(compose("train", *TINY, "trainer.overfit_batches=2", "trainer.max_epochs=3"), tmp_path)

    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]
    assert all(len(batch) > 1 for batch in seen)  # whole batches, not single pairs


def test_long_pairs_are_not_drawn(compose, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.training.results.HEATMAP_LIMIT", 0)

    train(compose("train", *TINY), tmp_path)

    assert not list(tmp_path.glob("attention_*"))


def stop_after(config, epochs, output_dir):
    """Run until Ctrl-C at the start of an epoch."""

    def interrupt(_callback, trainer, _module):
        if trainer.current_epoch == epochs:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seq2seq.training.callbacks.BatchSeed.on_train_epoch_start", interrupt)
        with pytest.raises(Stopped) as stopped:
            train(config, output_dir)
    assert stopped.value.code == 130


@pytest.fixture
def exact_match(monkeypatch):
    """Lets a test say what the exact match of each validation is, one after another; the last one stays."""
    values = [0.0]

    def compute(_metric):
        return torch.tensor(values.pop(0) if len(values) > 1 else values[0])

    monkeypatch.setattr(ExactMatch, "compute", compute)
    return values


def epoch_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["epoch"]


def test_the_last_checkpoint_is_that_of_the_last_epoch_even_if_none_was_better(compose, tmp_path, exact_match):
    exact_match[:] = [0.5, 0.4, 0.3]

    train(compose("train", *TINY, "trainer.max_epochs=3"), tmp_path)

    assert (epoch_of(tmp_path / "best.ckpt"), epoch_of(tmp_path / "last.ckpt")) == (0, 2)


def test_of_equally_good_epochs_the_later_is_kept(compose, tmp_path, exact_match):
    exact_match[:] = [0.2, 0.5, 0.5, 0.4]

    train(compose("train", *TINY, "trainer.max_epochs=4"), tmp_path)

    assert epoch_of(tmp_path / "best.ckpt") == 2


def test_patience_is_counted_from_the_first_match_and_the_log_says_when_it_is_over(
    compose, tmp_path, exact_match, caplog
):
    exact_match[:] = [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.4]

    with caplog.at_level("INFO"):
        train(compose("train", *TINY, "trainer.max_epochs=20", "callbacks.early_stopping.patience=2"), tmp_path)

    assert epoch_of(tmp_path / "last.ckpt") == 6
    assert (
        "stopped early after epoch 7: no better val/exact_match in 2 validations (callbacks.early_stopping.patience=2)"
        in caplog.text
    )


def test_ctrl_c_keeps_the_checkpoints_and_says_where(compose, tmp_path, caplog):
    stop_after(compose("train", *TINY, "trainer.max_epochs=3"), epochs=1, output_dir=tmp_path)

    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert f"stopped by SIGINT; kept: {tmp_path / 'best.ckpt'}, {tmp_path / 'last.ckpt'}; continue with" in caplog.text


def test_ctrl_c_in_the_first_epoch_says_that_there_is_nothing_and_frees_the_directory(compose, tmp_path, caplog):
    stop_after(compose("train", *TINY), epochs=0, output_dir=tmp_path)

    assert "kept: no checkpoint, as none was written yet" in caplog.text
    train(compose("train", *TINY), tmp_path)


def test_a_directory_that_holds_a_run_is_refused_and_left_as_it_is(compose, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.iterdir()}

    with pytest.raises(UserError, match=f"hydra.run.dir={tiny_run} already holds a run; .* resume="):
        train(compose("train", *TINY), tiny_run)

    assert {path: path.stat().st_mtime_ns for path in tiny_run.iterdir()} == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.bridge=concat"], "model.decoder.hidden_size=8 does not fit model.bridge=concat"),
        (["seed=-1"], "seed=-1 must be a whole number of at least 0"),
        (
            ["callbacks.early_stopping.patience=0"],
            "callbacks.early_stopping.patience=0 must be a whole number of at least 1",
        ),
        (["weight_averaging=1"], "weight_averaging=1 must be a number of at least 0 and below 1"),
        (["scheduled_sampling=2"], "scheduled_sampling=2 must be a number of at least 0"),
        (["search.max_length=0"], "search.max_length=0 must be a whole number of at least 1"),
        (["fast=yes"], "fast=yes must be one of auto, false"),
        (["fast=true"], "fast=true must be one of auto, false"),
        (["matmul_precision=low"], "matmul_precision=low must be one of highest, high, medium"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs=-1 sets no end"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs=abc must be a whole number of at least -1"),
        (["+trainer.strategy=fsdp"], "trainer: The strategy `fsdp` requires a GPU accelerator"),
        (["trainer.devices=true"], "trainer.devices=true must be a whole number"),
        (["trainer.precision=foo"], "trainer.precision=foo must be one of "),
        (["trainer._target_=foo"], "trainer._target_=foo must be the full name of a class"),
        (["optimizer._partial_=false"], "optimizer._partial_=False must be true"),
        (["model.attention=nan"], "model.attention=nan must be a string that is not empty or a mapping"),
        (["metrics.exact_match._target_=torch.foo"], "metrics.exact_match._target_=torch.foo must be the full name"),
        (["callbacks.learning_rate.logging_interval=day"], "callbacks.learning_rate.logging_interval=day"),
        (["callbacks.early_stopping.monitor=foo"], "callbacks.early_stopping.monitor=foo must be one of train/loss"),
        (["callbacks.last_checkpoint.every_minutes=-1"], "callbacks.last_checkpoint.every_minutes=-1 must be a number"),
        (["logger.csv.name=[]"], "logger.csv.name=[] must be a string"),
        (["optimizer.lr=1e10"], "optimizer.lr=10000000000.0 must be a number of at least 0 and at most 100"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1 must be a number of at least 0"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1 must be a number of at least 0"),
        (["trainer.gradient_clip_val=nan"], "trainer.gradient_clip_val=nan must be a number of at least 0"),
        (["trainer.enable_progress_bar=foo"], "trainer.enable_progress_bar=foo must be true or false"),
        (
            ["trainer.val_check_interval=0"],
            "trainer.val_check_interval=0 must be a whole number of at least 1 or a number above 0 and at most 1",
        ),
        (
            ["trainer.limit_train_batches=0"],
            "trainer.limit_train_batches=0 must be a whole number of at least 1 or a number above 0 and",
        ),
        (
            ["trainer.limit_train_batches=1.5"],
            "trainer.limit_train_batches=1.5 must be a whole number of at least 1 or a number above 0",
        ),
        (
            ["trainer.fast_dev_run=maybe"],
            "trainer.fast_dev_run=maybe must be true or false or a whole number of at least 0",
        ),
        (["+trainer.logger=false"], "trainer.logger=False has no effect here: see the section logger"),
        (["checkpoint.every_n_steps=0"], "checkpoint.every_n_steps=0 must be a whole number of at least 1"),
        (["trainer.limit_val_batches=0"], "trainer.limit_val_batches=0 leaves no best checkpoint"),
        (["monitor=val/bleu"], "monitor=val/bleu must be one of val/exact_match, val/symbol_error_rate, "),
        (["monitor_mode=low"], "monitor_mode=low must be one of max, min"),
        (["monitor_mode=min"], "monitor_mode=min does not fit monitor=val/exact_match, of which higher is better"),
        (["optimized_metric=bleu"], "optimized_metric=bleu must be one of val/exact_match, "),
        (["search.n_best=2"], "search.n_best=2 must be 1 here: only the best prediction is evaluated"),
        (["seed=99999999999"], "seed=99999999999 must be a whole number of at least 0 and at most 4294967295"),
        (["optimizer.lr=-1"], "optimizer.lr=-1 must be a number of at least 0 and at most 100"),
        (["+optimizer.momentum=0.9"], "optimizer: AdamW.__init__() got an unexpected keyword argument 'momentum'"),
        (["scheduler.warmup=2"], "scheduler.warmup=2 must be a number of at least 0 and below 1"),
        (
            ["scheduler._target_=torch.optim.lr_scheduler.StepLR", "~scheduler.warmup", "+scheduler.step_size=2"],
            "scheduler: StepLR.__init__() got an unexpected keyword argument 'total_steps'",
        ),
        (["+scheduler.foo=2"], "scheduler: cosine_with_warmup() got an unexpected keyword argument 'foo'"),
        (
            ["+callbacks.early_stopping.delta=1"],
            "callbacks.early_stopping: PatientStopping.__init__() got an unexpected",
        ),
        (["+metrics.foo=1"], "metrics.foo"),
        (["+search.beam=4"], "search.beam is unknown"),
        (["+model.foo=1"], "model.foo is unknown"),
        (["+foo=1"], "foo is unknown; the keys are callbacks, checkpoint, data, "),
        (["trainer.max_steps=abc"], "trainer.max_steps=abc must be a whole number of at least -1"),
        (
            ["+trainer.accumulate_grad_batches=0"],
            "trainer.accumulate_grad_batches=0 must be a whole number of at least 1",
        ),
        (["+trainer.epochs=3"], "trainer: Trainer.__init__() got an unexpected keyword argument 'epochs'"),
        (["trainer.precision=17"], "trainer.precision=17 must be one of "),
        (["trainer.val_check_interval=1000"], "trainer: `val_check_interval` (1000) must be less than or equal to"),
        (["resume="], "resume= must be a string that is not empty or null"),
        (
            ["+trainer.strategy=ddp_spawn", "trainer.devices=2"],
            "trainer.strategy=ddp_spawn would train in processes that leave no results; give ddp",
        ),
        (["model.encoder.embedding_size=1000000000000"], "model.encoder.embedding_size=1000000000000 must be a whole"),
        (["resume=missing.ckpt"], "resume=missing.ckpt cannot be read: No such file or directory"),
        (["seed=${nowhere}"], "seed: Interpolation key 'nowhere' not found"),
        (["data.batch_size=???"], "data.batch_size is missing: give data.batch_size=VALUE"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(compose, tmp_path, overrides, message):
    with pytest.raises(UserError, match="^" + re.escape(message)) as caught:
        train(compose("train", *TINY, *overrides), tmp_path)

    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.ckpt"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.encoder.hidden_size=5"], "model.encoder.hidden_size=5 differs from the 6 that resume="),
        (["optimizer.lr=1"], "optimizer.lr=1 differs from the 0.003 that resume="),
        (["data.min_letters=3", "data.train_size=5"], "data: the source vocabulary differs from that of resume="),
    ],
)
def test_a_run_does_not_resume_with_settings_that_must_not_change(compose, tmp_path, tiny_run, overrides, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        train(compose("train", *TINY, f"resume={tiny_run / 'last.ckpt'}", *overrides), tmp_path)


def test_averaged_weights_are_evaluated_and_kept(compose, tmp_path):
    train(compose("train", *TINY, "weight_averaging=0.9"), tmp_path)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)

    weights, average = (
        saved[key]["model.decoder.output_layer.weight"] for key in ("current_model_state", "state_dict")
    )
    assert not torch.equal(weights, average)
    assert load_model(str(tmp_path / "last.ckpt")).model.decoder.output_layer.weight.equal(average)


@pytest.mark.parametrize("averaging", ["0", "0.9"])
def test_the_best_checkpoint_is_tested_as_it_was_saved(compose, tmp_path, exact_match, averaging):
    exact_match[:] = [0.5, 0.4, 0.3]  # the first of three epochs is the best

    content = train(compose("train", *TINY, f"weight_averaging={averaging}", "trainer.max_epochs=3"), tmp_path / "run")
    again = evaluate(compose("evaluate", f"checkpoint={tmp_path}/run/best.ckpt"), tmp_path / "again")

    assert epoch_of(tmp_path / "run" / "best.ckpt") == 0
    assert again["test"] == pytest.approx(content["test"])


def test_the_results_are_those_of_the_predictions(tiny_run):
    rows = [line.split("\t") for line in (tiny_run / "predictions.tsv").read_text().splitlines()[1:]]
    results = json.loads((tiny_run / "metrics.json").read_text())["test"]

    _, predictions, references, correct, _ = zip(*rows, strict=True)
    assert results["symbol_error_rate"] == pytest.approx(float(word_error_rate(predictions, references)))
    assert results["exact_match"] == pytest.approx(correct.count("1") / len(correct))


def test_a_resumed_run_goes_on_with_the_average(compose, tmp_path):
    long = [*TINY, "weight_averaging=0.9", "callbacks.early_stopping.patience=9"]
    train(compose("train", *long, "trainer.max_epochs=4"), tmp_path / "whole")
    half = [*long, "trainer.max_epochs=2"]
    train(compose("train", *half), tmp_path / "half")
    resumed = f"resume={tmp_path}/half/last.ckpt"
    train(compose("train", *long, "trainer.max_epochs=4", resumed), tmp_path / "rest")

    whole, rest = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "rest"))
    name = "model.decoder.output_layer.weight"
    # The schedule of the learning rate of the first half was another, so the numbers differ; that both go on is shown.
    assert not torch.equal(rest["current_model_state"][name], rest["state_dict"][name])
    assert int(rest["averaging_state"]["n_averaged"]) == int(whole["averaging_state"]["n_averaged"])


@pytest.mark.parametrize(("first", "then", "was"), [("0.9", "0", "with"), ("0", "0.9", "without")])
def test_a_resume_with_another_averaging_is_refused(compose, tmp_path, first, then, was):
    train(compose("train", *TINY, f"weight_averaging={first}"), tmp_path / "half")
    again = [f"weight_averaging={then}", "trainer.max_epochs=2", f"resume={tmp_path}/half/last.ckpt"]

    with pytest.raises(
        UserError, match=rf"weight_averaging: resume=.* was trained {was} it; give the overrides of that"
    ):
        train(compose("train", *TINY, *again), tmp_path / "rest")


def test_dates_are_also_reported_by_locale(compose, tmp_path):
    dates = [override for override in TINY if not override.startswith("data")]
    small = ["data.train_size=40", "data.val_size=8", "data.test_size=8", "data.locales=[fr,ja]"]

    content = train(compose("train", *dates, *small), tmp_path)

    assert set(content["test"]["by_locale"]) == {"fr", "ja"}


def test_without_attention_there_are_no_heatmaps(compose, tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(compose("train", *TINY, "model.attention=none"), tmp_path)

    assert not list(tmp_path.glob("attention_*"))
    assert "there are no attention weights to draw" in caplog.text


def test_without_a_logger_there_are_no_learning_curves(compose, tmp_path):
    train(compose("train", *TINY, "~logger.csv"), tmp_path)

    assert not (tmp_path / "learning_curves.png").exists()
    assert (tmp_path / "metrics.json").exists()


def test_tensorboard_writes_beside_the_csv(compose, tmp_path):
    train(compose("train", *TINY, "logger=tensorboard"), tmp_path)

    assert (tmp_path / "metrics.csv").exists()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_evaluating_again_gives_the_same_metrics(compose, tiny_run, tmp_path):
    content = evaluate(compose("evaluate", f"checkpoint={tiny_run / 'best.ckpt'}"), tmp_path)

    assert content["test"] == pytest.approx(json.loads((tiny_run / "metrics.json").read_text())["test"])
    assert (tmp_path / "predictions.tsv").read_text() == (tiny_run / "predictions.tsv").read_text()


def test_a_run_without_a_test_and_without_logged_steps_ends_well(compose, tmp_path):
    content = train(compose("train", *TINY, "trainer.limit_test_batches=0", "trainer.log_every_n_steps=0"), tmp_path)

    assert "validation" in content
    assert "test" not in content
