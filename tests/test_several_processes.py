"""Several processes train what one trains, survive what one survives, and fail with one message."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY
from test_scripts import run

SETTINGS = [
    *TINY,
    "data.train_size=65",  # the last batch, of one pair, is an empty share for one of the processes
    "data.val_size=1",
    "metrics=text",
    "trainer.max_epochs=3",
    "checkpoint.every_n_steps=2",
    "resume=auto",
]

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]

SCRIPT = """
import contextlib, os, signal, time
import hydra, torch
from seq2seq.commands import train as command
from seq2seq.runs.console import run_job
from seq2seq.training.module import Seq2SeqModule

rank, step, fault = os.environ["FAULT"].split()

def faulty(module, batch, number):
    if rank in ("any", str(module.trainer.global_rank)) and module.global_step == int(step):
        if fault == "NaN":
            torch.nn.init.constant_(next(module.parameters()), torch.nan)
        else:
            os.kill(os.getpid(), getattr(signal, fault))

@contextlib.contextmanager
def slow_tracker(_):
    try:
        yield
    finally:
        time.sleep(float(os.environ["SECONDS"]))

@hydra.main(version_base="1.3", config_path=os.environ["CONFIGS"], config_name="train")
def main(config):
    if os.environ["SECONDS"] != "0" and os.environ.get("LOCAL_RANK", "0") == "0":
        command.closed_at_the_end = slow_tracker
    Seq2SeqModule.on_train_batch_start = faulty
    run_job("train.train_and_score", config, several=True)

main()
"""


def train(output_dir, *overrides, fault="9 0 none", launcher=(), seconds=0):
    """A run in processes of its own: exit code, and what it printed on stderr."""
    script = output_dir.parent / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, *launcher, str(script), *SETTINGS, *overrides, f"hydra.run.dir={output_dir}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FAULT": fault, "CONFIGS": str(ROOT / "configs")}
    environment["SECONDS"] = str(seconds)  # that a tracker of the first process takes to end
    done = subprocess.run(
        command, cwd=output_dir.parent, env=environment, encoding="utf-8", capture_output=True, timeout=120, check=False
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The directory of a run of two processes that nothing disturbs."""
    output_dir = tmp_path_factory.mktemp("processes") / "two"
    code, stderr = train(output_dir, *TWO)
    assert code == 0, stderr
    return output_dir


def processes_of(output_dir):
    """The processes whose command line names a run's directory."""
    commands = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/cmdline")}
    found = []
    for number, path in commands.items():
        with suppress(OSError):  # it has ended
            found += [number] * (str(output_dir).encode() in path.read_bytes())
    return found


def rows(output_dir):
    with (output_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_two_processes_train_and_predict_what_one_does(two, tmp_path):
    code, _, stderr = run("train", *SETTINGS, "hydra.run.dir=one", cwd=tmp_path)

    assert (code, stderr) == (0, "")
    alone, together = rows(tmp_path / "one"), rows(two)
    assert [row.keys() for row in together] == [row.keys() for row in alone]
    assert any("train/loss" in row for row in alone)
    assert any("test/bleu" in row for row in alone)
    for one, several in zip(alone, together, strict=True):
        assert several == pytest.approx(one, rel=1e-6, abs=1e-6)
    assert (two / "predictions.tsv").read_text() == (tmp_path / "one" / "predictions.tsv").read_text()
    assert {path.name for path in two.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


def test_a_run_of_two_processes_that_was_killed_goes_on_exactly(two, tmp_path):
    code, stderr = train(tmp_path / "run", *TWO, fault="0 7 SIGKILL")

    assert code == -signal.SIGKILL
    assert not [line for line in stderr.splitlines() if not line.startswith("error: ")]  # of the other process
    assert_ends_like(two, tmp_path / "run")


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_and_the_run_goes_on_exactly(two, tmp_path):
    assert train(tmp_path / "run", *TWO, fault="1 12 SIGTERM")[0] == 128 + signal.SIGTERM

    assert_ends_like(two, tmp_path / "run")


@pytest.mark.slow
def test_the_first_process_may_take_longer_to_end_than_lightning_waits(tmp_path):
    code, _ = train(tmp_path / "run", *TWO, fault="0 7 SIGTERM", seconds=12)

    assert code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; kept: " in (tmp_path / "run" / "train.log").read_text()


def assert_ends_like(two, output_dir):
    """The same command, given again, ends like a run that nothing disturbs."""
    assert train(output_dir, *TWO) == (0, "")
    assert (output_dir / "metrics.csv").read_text() == (two / "metrics.csv").read_text()
    whole, resumed = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (two, output_dir))
    assert all(torch.equal(resumed[name], weights) for name, weights in whole.items())


@pytest.mark.parametrize("rank", [pytest.param("1", marks=pytest.mark.slow), "any"])
def test_an_error_in_one_process_ends_all_each_with_one_line(tmp_path, rank):
    code, stderr = train(tmp_path / "run", *TWO, fault=f"{rank} 6 NaN")

    assert code == 1
    assert 1 <= stderr.count("\n") <= 2
    for line in stderr.splitlines():
        assert line.startswith("error: train/loss is nan at step 7, ")
    assert stderr.count("with the pairs ") == (2 if rank == "any" else 1)  # of the process that has them


@pytest.mark.slow
def test_a_process_does_not_outlive_its_parent(tmp_path):
    """The first process is killed while the second is busy, and so hears nothing of it."""
    code, _ = train(tmp_path / "run", *TWO, fault="0 7 SIGKILL")

    deadline = time.monotonic() + 20
    while orphans := processes_of(tmp_path / "run"):
        assert time.monotonic() < deadline, orphans
        time.sleep(0.2)
    assert code == -signal.SIGKILL


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_a_run(two, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    code, stderr = train(tmp_path / "run", "trainer=ddp", "trainer.accelerator=cpu", launcher=launcher)
    refused = train(tmp_path / "alone", launcher=launcher)

    assert code == 0, stderr
    assert (tmp_path / "run" / "metrics.csv").read_text() == (two / "metrics.csv").read_text()
    assert "error: trainer.devices=1 makes 1 of the 2 processes" in refused[1]
    assert not (tmp_path / "alone").exists()


@pytest.mark.slow
def test_two_processes_evaluate_what_one_does(two, tmp_path):
    def evaluate(name, *overrides):
        command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), f"checkpoint={two}/best.ckpt"]
        command += ["metrics=text", "search.beam_size=3", f"hydra.run.dir={name}", *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, encoding="utf-8", capture_output=True, timeout=120, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads((tmp_path / name / "metrics.json").read_text())

    alone, together = evaluate("alone", "trainer=cpu"), evaluate("together", *TWO)

    assert together["test"] == pytest.approx(alone["test"])
    assert (tmp_path / "together" / "predictions.tsv").read_text() == (
        tmp_path / "alone" / "predictions.tsv"
    ).read_text()
    assert {path.name for path in (tmp_path / "together").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
