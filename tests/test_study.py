"""A study: runs that are done are left alone, and its report says what they found."""

import json

import pytest
import yaml
from conftest import TINY
from test_commands import run

from seq2seq.errors import UserError
from seq2seq.study import Run, interval, markdown, picture, read_run, shown
from seq2seq.training import train

SKIP = [*TINY, "skip_finished=true"]


def test_a_run_that_is_finished_is_left_as_it_is(compose, tmp_path):
    first = train(compose("train", *SKIP), tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}

    again = train(compose("train", *SKIP), tmp_path / "run")

    assert again == json.loads(json.dumps(first))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_a_run_that_was_killed_starts_anew(compose, tmp_path):
    expected = train(compose("train", *SKIP), tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()  # killed before its end
    (tmp_path / "run" / "best.ckpt").write_bytes(b"half")

    again = train(compose("train", *SKIP), tmp_path / "run")

    assert again["test"] == expected["test"]


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(compose, tmp_path):
    train(compose("train", *SKIP), tmp_path / "run")

    with pytest.raises(UserError, match=r"a run with optimizer\.lr=0\.003, and this one has 0\.001; choose another"):
        train(compose("train", *SKIP, "optimizer.lr=1e-3"), tmp_path / "run")


def test_skip_finished_is_true_or_false(compose, tmp_path):
    with pytest.raises(UserError, match="skip_finished=maybe must be true or false"):
        train(compose("train", *TINY, "skip_finished=maybe"), tmp_path / "run")


def test_a_study_is_one_command_and_goes_on_where_it_stopped(tmp_path):
    small = [size for size in TINY if not size.startswith("data")]
    small += ["data.train_size=40", "data.val_size=20", "data.test_size=20", "hydra.sweep.dir=study"]
    study = ["experiment=handoff_study", "experiment/case=linear,lstm_wrong_cell", "model.attention=none", *small]

    code, stdout, _ = run("train", *study, "seed=1", cwd=tmp_path)
    table = (tmp_path / "study" / "table.md").read_text()
    seen = (tmp_path / "study" / "linear-none-1" / "metrics.json").stat().st_mtime_ns

    assert code == 0
    assert "dates, GRU" in stdout
    assert "| linear | 1 |" in table
    assert "| wrong_cell | 1 |" in table
    assert (tmp_path / "study" / "study.png").stat().st_size > 10_000

    code, *_ = run("train", *study, "seed=1,2", cwd=tmp_path)

    assert code == 0
    assert (tmp_path / "study" / "linear-none-1" / "metrics.json").stat().st_mtime_ns == seen
    assert "| linear | 2 |" in (tmp_path / "study" / "table.md").read_text()


RUNS = [
    Run("dates, GRU", "zeros", "none", 10.0, 1.0),
    Run("dates, GRU", "linear", "none", 90.0, 30.0),
    Run("dates, GRU", "linear", "none", 94.0, 30.0),
    Run("dates, GRU", "linear", "general", 99.0, 50.0),
    Run("dates, LSTM", "wrong_cell", "none", 50.0, 5.0),
]


def test_the_table_holds_means_and_intervals_by_group():
    lines = markdown(RUNS).splitlines()

    assert lines[:6] == [
        "**dates, GRU**",
        "",
        "| handed over | seeds | general attention | no attention | general attention, first epoch "
        "| no attention, first epoch |",
        "|---|---|---|---|---|---|",
        "| linear | 1, 2 | 99.0 | 92.0 ± 25.4 | 50.0 | 30.0 ± 0.0 |",
        "| zeros | 0, 1 |  | 10.0 |  | 1.0 |",
    ]
    assert "| wrong_cell | 1 | 50.0 | 5.0 |" in lines


def test_the_interval_is_students():
    # A textbook case: 1, 2, 3, 4, 5 has mean 3, deviation sqrt(2.5), and t = 2.776 for four degrees of freedom.
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])

    assert mean == 3
    assert half == pytest.approx(2.776 * (2.5 / 5) ** 0.5)
    assert shown([]) == ""


def test_the_picture_has_a_panel_for_each_group_and_attention():
    titles = [axes.get_title() for axes in picture(RUNS).axes]

    assert titles == ["dates, GRU, general attention", "dates, GRU, no attention", "dates, LSTM, no attention", ""]


def test_a_run_is_read_by_its_settings(tiny_run, tmp_path):
    assert read_run(tmp_path) is None
    found = read_run(tiny_run)

    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert yaml.safe_load((tiny_run / "config.yaml").read_text())["handoff"] == "right"
    assert found[:3] == ("reverse, GRU", "linear", "general")
    assert found.exact_match == 100 * metrics["test"]["exact_match"]
