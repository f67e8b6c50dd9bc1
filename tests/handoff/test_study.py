"""A study: runs that are done are left alone, and its report says what they found."""

import json
import math
import shutil

import pytest
import pytorch_lightning as pl
import yaml
from conftest import TINY
from matplotlib.colors import to_hex
from test_scripts import run

from seq2seq.commands.train import train
from seq2seq.errors import UserError
from seq2seq.handoff.study import Run, markdown, picture, read_run
from seq2seq.reporting.plots import BLUE, ORANGE, save
from seq2seq.resuming.continuing import Start
from seq2seq.runs.sweep import format_interval, interval

SKIP = [*TINY, "resume=auto"]


def test_a_run_that_is_finished_is_left_as_it_is(compose, tmp_path):
    first = train(compose("train", *SKIP), tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}

    again = train(compose("train", *SKIP), tmp_path / "run")

    assert again == json.loads(json.dumps(first))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_a_run_without_a_whole_checkpoint_starts_anew(compose, tmp_path):
    expected = train(compose("train", *SKIP), tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()  # killed before its end
    for name in ("best.ckpt", "last.ckpt"):
        (tmp_path / "run" / name).write_bytes(b"half")

    again = train(compose("train", *SKIP), tmp_path / "run")

    assert again["test"] == expected["test"]


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(compose, tmp_path):
    train(compose("train", *SKIP), tmp_path / "run")

    with pytest.raises(UserError, match=r"a run with optimizer\.lr=0\.003, and this one has 0\.001; choose another"):
        train(compose("train", *SKIP, "optimizer.lr=1e-3"), tmp_path / "run")


def test_a_run_that_cannot_start_anew_loses_nothing(compose, tmp_path):
    tsv = [size for size in TINY if not size.startswith("data")]
    (tmp_path / "pairs.tsv").write_text("ab\tx\ncd\tz\n")
    files = [f"data.{split}={tmp_path}/pairs.tsv" for split in ("train", "val", "test")]
    again = ["data=tsv", *files, *tsv, "resume=auto"]
    train(compose("train", *again), tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "pairs.tsv").unlink()

    with pytest.raises(UserError, match="cannot be read"):
        train(compose("train", *again), tmp_path / "run")

    assert (tmp_path / "run" / "best.ckpt").exists()


def test_a_checkpoint_that_no_run_of_ours_left_is_not_removed(compose, tmp_path, tiny_run):
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_run / "last.ckpt", tmp_path / "run")

    with pytest.raises(UserError, match="already holds a run"):
        train(compose("train", *SKIP), tmp_path / "run")

    assert (tmp_path / "run" / "last.ckpt").exists()


def test_what_does_not_change_the_result_may_differ(compose, tmp_path):
    first = train(compose("train", *TINY), tmp_path / "run")  # without resume=auto

    again = train(compose("train", *SKIP, "trainer.log_every_n_steps=7", "~logger.csv"), tmp_path / "run")

    assert again == json.loads(json.dumps(first))


def test_a_directory_in_use_is_refused(compose, tmp_path):
    train(compose("train", *SKIP), tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) | {"resume": "auto"}
    trainer = pl.Trainer(accelerator="cpu", logger=False)

    with (
        Start(tmp_path / "run", settings).entered(trainer, []),
        pytest.raises(UserError, match=r"hydra\.run\.dir=.*run is in use by another run; choose another directory"),
    ):
        train(compose("train", *SKIP), tmp_path / "run")


def test_a_sweep_that_is_refused_a_directory_says_so_and_changes_nothing(tmp_path):
    sweep = ["-m", *SKIP, "seed=1", "hydra.sweep.dir=sweep"]
    assert run("train", *sweep, cwd=tmp_path)[0] == 0
    before = (tmp_path / "sweep" / "0" / "overrides.yaml").read_text()

    code, stdout, _ = run("train", *sweep, "optimizer.lr=0.1", cwd=tmp_path)

    assert code == 1
    assert "holds a run with optimizer.lr=0.003, and this one has 0.1" in stdout
    assert (tmp_path / "sweep" / "0" / "overrides.yaml").read_text() == before

    code, stdout, _ = run("train", *sweep, cwd=tmp_path)  # the right settings again

    assert code == 0
    assert "failed" not in stdout


def test_a_study_is_one_command_and_goes_on_where_it_stopped(tmp_path):
    small = [size for size in TINY if not size.startswith("data")]
    small += ["data.train_size=40", "data.val_size=20", "data.test_size=20", "hydra.sweep.dir=study"]
    study = ["experiment=handoff_study", "study_case=linear,lstm_wrong_cell", "model.attention=none", *small]

    code, stdout, _ = run("train", *study, "seed=1", cwd=tmp_path)
    table = (tmp_path / "study" / "table.md").read_text()
    seen = (tmp_path / "study" / "linear-none-1" / "metrics.json").stat().st_mtime_ns

    assert code == 0
    assert "dates, GRU" in stdout
    assert "| linear | 1 |" in table
    assert "| wrong_cell | 1 |" in table
    assert (tmp_path / "study" / "study.png").exists()

    code, *_ = run("train", *study, "seed=1,2", cwd=tmp_path)

    assert code == 0
    assert (tmp_path / "study" / "linear-none-1" / "metrics.json").stat().st_mtime_ns == seen
    assert "| linear | 2 |" in (tmp_path / "study" / "table.md").read_text()


RUNS = [
    Run("dates, GRU", "zeros", "none", 1, 10.0, 1.0),
    Run("dates, GRU", "linear", "none", 1, 90.0, 30.0),
    Run("dates, GRU", "linear", "none", 2, 94.0, 30.0),
    Run("dates, GRU", "linear", "general", 1, 99.0, 50.0),
    Run("dates, LSTM", "wrong_cell", "none", 1, 50.0, 5.0),
]


def test_the_table_holds_means_and_intervals_by_group():
    lines = markdown(RUNS).splitlines()

    assert lines[:6] == [
        "**dates, GRU**",
        "",
        "| handed over | seeds | general attention | no attention | general attention, epoch 1 "
        "| no attention, epoch 1 |",
        "|---|---|---|---|---|---|",
        "| linear | 2 | 99.0 | 92.0 ± 25.4 | 50.0 | 30.0 ± 0.0 |",
        "| zeros | 1 |  | 10.0 |  | 1.0 |",
    ]
    assert "| wrong_cell | 1 | 50.0 | 5.0 |" in lines


def test_the_interval_is_students():
    # A textbook case: 1, 2, 3, 4, 5 has mean 3, deviation sqrt(2.5), and t = 2.776 for four degrees of freedom.
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])

    assert mean == 3
    assert half == pytest.approx(2.776 * (2.5 / 5) ** 0.5)
    assert format_interval([], digits=1) == ""


@pytest.mark.pictures
def test_the_picture_has_a_panel_for_each_group_and_attention(tmp_path):
    colours = {
        to_hex(line.get_color()) for axes in picture(RUNS).axes for line in axes.lines if line.get_marker() == "o"
    }
    assert colours == {BLUE, ORANGE}  # bridges and mistakes
    titles = [axes.get_title() for axes in picture(RUNS).axes]
    save(picture(RUNS), tmp_path / "study.png")

    assert titles == ["dates, GRU, general attention", "dates, GRU, no attention", "dates, LSTM, no attention", ""]
    assert (tmp_path / "study.png").stat().st_size > 10_000


def test_the_picture_fits_its_data_ends_intervals_at_100_and_says_what_it_shows():
    figure = picture(RUNS)

    wide, narrow = figure.axes[1], figure.axes[0]  # without attention and with it
    (segment,) = wide.collections[0].get_segments()
    assert segment[:, 0] == pytest.approx([92 - 12.706 * 2, 100])  # t for one degree of freedom, deviation sqrt(8)
    assert wide.get_xlim() == pytest.approx((10 - 4.5, 100 + 4.5))
    assert narrow.get_xlim() == pytest.approx((97 - 0.1, 99 + 0.1))
    words = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert all(word in words for word in ("seed", "mean", "95 % interval", "bridge", "mistake"))


def test_a_run_is_read_by_its_settings(tiny_run, tmp_path):
    assert read_run(tmp_path) is None
    found = read_run(tiny_run)

    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert yaml.safe_load((tiny_run / "config.yaml").read_text())["handoff"] == "right"
    assert found[:3] == ("reverse, GRU", "linear", "general")
    assert found.seed == 1
    assert found.score == 100 * metrics["test"]["exact_match"]
    assert found.early == 100 * metrics["validation"]["exact_match"]  # there was one epoch only


def test_a_run_without_a_curve_is_read_too(tiny_run, tmp_path):
    for name in ("config.yaml", "metrics.json"):
        shutil.copy(tiny_run / name, tmp_path)

    assert math.isnan(read_run(tmp_path).early)


def test_a_mistake_through_another_bridge_is_no_seed_of_the_same(tiny_run, tmp_path):
    settings = yaml.safe_load((tiny_run / "config.yaml").read_text())
    settings |= {"handoff": "wrong_halves", "model": settings["model"] | {"bridge": "top"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(tiny_run / "metrics.json", tmp_path)

    assert read_run(tmp_path).variant == "wrong_halves through top"
    assert "| wrong_halves through top | 1 |" in markdown([read_run(tmp_path)])
