"""Tuning: a study tries values, goes on after it was killed, prunes, and leaves an experiment."""

import json
import multiprocessing
import sqlite3
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from statistics import fmean

import optuna
import pytest
import yaml
from conftest import ROOT, TINY, combinations
from hydra import compose, initialize_config_dir
from optuna.trial import TrialState

from seq2seq.commands import tune as command
from seq2seq.errors import UserError
from seq2seq.tuning.space import contains, read_space
from seq2seq.tuning.study import open_study

RUN = [*TINY, "monitor=val/loss_teacher_forced", "monitor_mode=min", "trainer.max_epochs=2"]


@pytest.fixture
def tune(tmp_path):
    """Run a study in ``tmp_path``."""

    def tune(*overrides, space=None):
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            given = [*RUN, *overrides]
            config = compose("tune", given)
            if space is not None:  # as a file of configs/tune would have it
                config.tune.space = space
            return command.tune(config, tmp_path, given)

    return tune


def trials_in(folder):
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db").trials


@pytest.mark.pictures
def test_a_study_tries_the_defaults_first_and_leaves_its_best_values_as_an_experiment(tune, tmp_path, capsys):
    best = tune("tune.trials=3")

    trials = trials_in(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert trials[0].params == {
        "optimizer.lr": 0.003, "model.dropout": 0.0, "label_smoothing": 0.0, "data.batch_size": 16,
    }  # fmt: skip
    assert best == min(trials, key=lambda trial: trial.value or 0).params
    for trial in trials:
        settings = yaml.safe_load((tmp_path / "trials" / str(trial.number) / "config.yaml").read_text())
        assert settings["data"]["batch_size"] == trial.params["data.batch_size"]
        assert settings["optimizer"]["lr"] == pytest.approx(trial.params["optimizer.lr"])
    assert (tmp_path / "study.png").stat().st_size > 5_000
    assert "Trials, minimize val/loss_teacher_forced" in capsys.readouterr().out
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        again = compose("train", [*RUN, f"hydra.searchpath=[file://{tmp_path}]", "experiment=tuned"])
    assert again.optimizer.lr == pytest.approx(best["optimizer.lr"])


def test_a_study_that_was_killed_goes_on_with_the_trial_that_ran(tune, tmp_path, monkeypatch):
    train = command.train
    calls = iter([True, False])

    def killed(config, output_dir, overrides):
        if next(calls):
            return train(config, output_dir, overrides)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        tune("tune.trials=3")
    before = trials_in(tmp_path)
    monkeypatch.setattr(command, "train", train)

    tune("tune.trials=3")

    after = trials_in(tmp_path)
    assert [trial.state for trial in before] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert [trial.state for trial in after] == [TrialState.COMPLETE] * 3
    assert after[1].params == before[1].params


@pytest.mark.slow
def test_a_trial_that_is_worse_than_others_were_is_pruned(tune, tmp_path):
    tune("tune.trials=10", "trainer.max_epochs=4", space={"optimizer.lr": [3e-3, 1e-9]})

    pruned = [trial for trial in trials_in(tmp_path) if trial.state == TrialState.PRUNED]
    assert {trial.params["optimizer.lr"] for trial in pruned} == {1e-9}
    assert max(max(trial.intermediate_values) for trial in pruned) < 3


def test_a_trial_of_several_runs_has_their_mean_and_is_pruned_by_it(tune, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.tuning.study.STARTUP", 1)
    over = "tune.over={seed: [1, 2], data.max_letters: [3, 5]}"
    space = {"optimizer.lr": [3e-3, 1e-9], "scheduler": ["none", "cosine"]}  # a value, and an option of a group
    tune("tune.trials=2", over, "tune.first=[{optimizer.lr: 1e-9}]", space=space)

    whole, pruned = trials_in(tmp_path)
    assert whole.params == {"optimizer.lr": 3e-3, "scheduler": "cosine"}  # the config's come first
    assert pruned.params == {"optimizer.lr": 1e-9, "scheduler": "cosine"}
    assert (whole.state, pruned.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    runs = [sorted((tmp_path / "trials" / str(number)).glob("*/metrics.json")) for number in range(2)]
    assert list(map(len, runs)) == [4, 2]  # all, and each value of the last key once
    losses = [json.loads(run.read_text())["validation"]["loss_teacher_forced"] for run in runs[0]]
    assert whole.intermediate_values == {1: pytest.approx(fmean(losses[:2]))}
    assert whole.value == pytest.approx(fmean(losses))
    settings = [yaml.safe_load((run.parent / "config.yaml").read_text()) for run in runs[0]]
    assert [(one["seed"], one["data"]["max_letters"]) for one in settings] == [(1, 3), (1, 5), (2, 3), (2, 5)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.over={seed: []}", r"tune\.over\.seed=\[\] must hold at least one value"),
        ("tune.over={sed: [1]}", r"tune\.over\.sed is no key of the training config"),
        ("tune.first=[{optimizer.lr: 5}]", r"first\[0\]\.optimizer\.lr=5 is not in tune\.space\.optimizer\.lr: F"),
        ("tune.first=[{model.dropout: 0.42}]", r"model\.dropout=0\.42 is not in .*step=0\.05"),
        ("tune.first=[{seed: 5}]", r"tune\.first\[0\]\.seed=5 is not in tune\.space: optimizer\.lr, "),
        ("tune.over={optimizer.lr: [1e-3]}", r"tune\.over\.optimizer\.lr cannot be given: tune\.space has that key"),
    ],
)
def test_a_mistake_in_what_is_run_is_one_line(tune, override, message):
    with pytest.raises(UserError, match=message):
        tune(override)


def test_a_trial_that_fails_does_not_end_the_study(tune, tmp_path, caplog):
    tune("tune.trials=1", "model.bridge=concat", space={"model.bridge": ["concat", "zeros"]})

    *failed, last = trials_in(tmp_path)
    assert last.state == TrialState.COMPLETE
    assert failed
    for trial in failed:
        assert trial.state == TrialState.FAIL
        assert f"trial {trial.number} failed: model.decoder.hidden_size=8 does not fit" in caplog.text


def train_that_fails(monkeypatch, *numbers):
    """Let the trials of these numbers fail at once, and the others finish at once."""

    def run(_, output_dir, __):
        if int(output_dir.name) in numbers:
            raise UserError("pairs.tsv cannot be read")
        return {"validation": {"loss_teacher_forced": float(output_dir.name)}}

    monkeypatch.setattr(command, "train", run)


@pytest.mark.parametrize("trials", [1, *combinations([9])])
def test_a_study_ends_with_the_reason_if_its_first_three_trials_fail(tune, tmp_path, monkeypatch, trials):
    train_that_fails(monkeypatch, *range(100))

    for _ in range(2):  # the second command has three attempts, too
        with pytest.raises(UserError, match=r"^the first 3 trials failed; trial \d: pairs\.tsv cannot be read$"):
            tune(f"tune.trials={trials}")

    assert [trial.state for trial in trials_in(tmp_path)] == [TrialState.FAIL] * 6


def test_later_failures_do_not_end_a_study_but_it_ends(tune, tmp_path, monkeypatch):
    train_that_fails(monkeypatch, 0, 1, 3, 4, *range(6, 100))

    best = tune("tune.trials=5")

    assert "".join(trial.state.name[0] for trial in trials_in(tmp_path)) == "FFCFFCF"
    assert best == trials_in(tmp_path)[2].params


def test_no_trial_is_run_by_two_processes(tune, tmp_path, monkeypatch):
    ran, given = [], [*RUN, "tune.trials=2"]

    def run(_, output_dir, __):
        ran.append(output_dir.name)
        if len(ran) == 1:  # while this trial runs and has not locked its directory yet, another process starts
            command.tune(compose("tune", given), tmp_path, given)
        return {"validation": {"loss_teacher_forced": 1.0}}

    monkeypatch.setattr(command, "train", run)

    tune("tune.trials=2")

    assert sorted(ran) == ["0", "1", "2"]
    assert [trial.state for trial in trials_in(tmp_path)] == [TrialState.COMPLETE] * 3
    assert [path.name for path in (tmp_path / "trials").iterdir()] == []


def test_processes_that_start_at_once_share_one_study(tmp_path):
    with warnings.catch_warnings(action="ignore"):  # that a process with threads forks
        processes = ProcessPoolExecutor(4, multiprocessing.get_context("fork"))
        studies = [processes.submit(opened, tmp_path) for _ in range(4)]
    with processes:
        assert [study.result(timeout=100) for study in studies] == ["study"] * 4


def opened(folder):
    return open_study(folder, "max", [{"a": 1}], 1).study_name


def other_program(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE pages (id INTEGER)")


def without_a_table(file):
    opened(file.parent)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE trials")
        connection.execute("CREATE TABLE trials (id INTEGER)")


def odd_json(file):
    opened(file.parent)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE trial_system_attributes SET value_json = 'no json'")


def truncated(file):
    opened(file.parent)
    file.write_bytes(file.read_bytes()[:20000])


def overwritten(file):
    opened(file.parent)
    content = file.read_bytes()
    file.write_bytes(content[:8192] + b"\xff" * 8192 + content[16384:])


@pytest.mark.parametrize(
    "damage",
    [lambda file: file.write_bytes(bytes(range(256)) * 40), lambda file: file.write_text("a text\n" * 2000),
     lambda file: file.mkdir(), other_program, without_a_table, odd_json, truncated, overwritten],
)  # fmt: skip
def test_a_damaged_database_is_one_line(tmp_path, damage):
    damage(tmp_path / "study.db")

    with pytest.raises(
        UserError, match=r"study\.db cannot be read as the database of a study: .*; if it is damaged, mo"
    ):
        opened(tmp_path)


def test_an_empty_database_is_a_new_study(tmp_path):
    (tmp_path / "study.db").touch()

    assert opened(tmp_path) == "study"


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_of_trials_shows_whole_names(tune, monkeypatch, capsys, width):
    train_that_fails(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(width))

    space = {"model.encoder.num_layers": [2], "optimizer.lr": [0.00123456], "model.bridge": ["zeros"]}
    tune("tune.trials=2", space=space | {"label_smoothing": [0.1], "data.batch_size": [16]})

    words = capsys.readouterr().out.split()
    assert {"trial", "result", "state", "values"} <= set(words)
    assert {"model.encoder.num_layers=2", "optimizer.lr=0.001235", "model.bridge=zeros", "data.batch_size=16"} <= set(
        words
    )


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"modle.dropout": [1]}, "tune.space.modle.dropout is no key of the training config: "),
        ({"model.dropout": 3}, "tune.space.model.dropout=3 must be a list of values, or a mapping"),
        ({"model.dropout": {"low": 1, "high": 0}}, "tune.space.model.dropout={'low': 1, 'high': 0}: "),
        ({}, "tune.space={} must hold keys of the training config"),
    ],
)
def test_a_mistake_in_a_space_is_one_line_before_any_trial(tune, tmp_path, space, message):
    with pytest.raises(UserError) as caught:
        tune(space=space)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["tune.trials=0", "tune.minutes=soon"])
def test_a_setting_that_is_not_allowed_is_refused(tune, override):
    with pytest.raises(UserError, match=rf"^{override} must be a"):
        tune(override)


def test_defaults_outside_the_space_are_not_tried():
    space = read_space({"a": {"low": 1, "high": 3}, "b": {"low": 0.1, "high": 1.0, "log": True}, "c": ["x", None]})

    assert [contains(space["a"], value) for value in (1, 4, True, "x")] == [True, False, False, False]
    assert [contains(space["b"], value) for value in (0.1, 0.05)] == [True, False]
    assert [contains(space["c"], value) for value in (None, "y")] == [True, False]
