"""The scripts as real processes: what they print where, what they leave, and how they end."""

import csv
import json
import multiprocessing
import os
import pty
import re
import runpy
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, combinations

from seq2seq.runs.next_steps import next_steps


def hear_ctrl_c():
    # A job in a shell's background is born deaf to it, and so would be our child.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(script, *overrides, cwd, **given):
    """A script's process, ended in any case."""
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    options: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | given
    process = subprocess.Popen(command, cwd=cwd, env=environment, encoding="utf-8", preexec_fn=hear_ctrl_c, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(script, *overrides, cwd, stdin=""):
    """A script's exit code and what it printed, run by a fork of this process, which has imported PyTorch already."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        arguments = (script, overrides, cwd, stdin, (stdout.fileno(), stderr.fileno()))
        process = multiprocessing.get_context("fork").Process(target=run_here, args=arguments)
        with warnings.catch_warnings(action="ignore"):  # that a process with threads forks
            process.start()
        process.join(120)
        process.kill()
        for file in (stdout, stderr):
            file.seek(0)
        return process.exitcode, stdout.read().decode(), stderr.read().decode()


def run_alone(script, *overrides, cwd):
    """A script's exit code and what it printed, run by a new Python."""
    with started(script, *overrides, cwd=cwd) as process:
        stdout, stderr = process.communicate(timeout=120)
        return process.returncode, stdout, stderr


def run_here(script, overrides, cwd, stdin, outputs):
    hear_ctrl_c()
    os.chdir(cwd)
    reader, writer = os.pipe()
    os.write(writer, stdin.encode())
    os.close(writer)
    for number, handle in enumerate((reader, *outputs)):
        os.dup2(handle, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ["COLUMNS"] = "200"
    sys.argv = [str(ROOT / "scripts" / f"{script}.py"), *overrides]
    runpy.run_path(sys.argv[0], run_name="__main__")


def test_predict_answers_in_a_pipe_and_leaves_nothing_behind(tiny_checkpoint, tmp_path):
    code, stdout, stderr = run("predict", f"checkpoint={tiny_checkpoint}", cwd=tmp_path, stdin="a b\n\né\n")

    assert (code, stderr) == (0, "")
    assert stdout.count("\n") == 3
    assert stdout.split("\n")[1] == ""
    assert not list(tmp_path.iterdir())


def test_in_a_pipe_each_line_is_answered_before_the_next_is_written(tiny_checkpoint, tmp_path):
    with started("predict", f"checkpoint={tiny_checkpoint}", cwd=tmp_path) as process:
        reader = selectors.DefaultSelector()
        reader.register(process.stdout, selectors.EVENT_READ)
        for text in ("a b\n", "c d\nhalf of "):
            process.stdin.write(text)
            process.stdin.flush()
            assert reader.select(timeout=60), "no answer"
            assert process.stdout.readline().endswith("\n")
        stdout, stderr = process.communicate("a line", timeout=60)

    assert (process.returncode, stdout.count("\n"), stderr) == (0, 1, "")


@pytest.mark.parametrize("script", ["predict", pytest.param("score", marks=pytest.mark.slow), "train --help"])
def test_a_full_disk_is_one_line(tiny_checkpoint, tmp_path, script):
    script, *overrides = script.split()
    overrides = overrides or [f"checkpoint={tiny_checkpoint}"]
    with Path("/dev/full").open("w") as full, started(script, *overrides, cwd=tmp_path, stdout=full) as process:
        _, stderr = process.communicate("a b\n", timeout=60)

    assert (process.returncode, stderr) == (1, "error: output cannot be written: No space left on device\n")


def test_a_reader_that_has_enough_ends_a_script_without_a_word(tiny_checkpoint, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with started("predict", f"checkpoint={tiny_checkpoint}", cwd=tmp_path, stdout=write_end) as process:
        _, stderr = process.communicate("a b\n", timeout=60)
    os.close(write_end)

    assert (process.returncode, stderr) == (1, "")


def test_predict_loads_pictures_and_exports_only_if_they_are_wanted():
    command = "import sys, seq2seq.commands.predict; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=True)

    assert not {"seq2seq.export", "seq2seq.reporting", "seq2seq.training"} & set(done.stdout.split())


def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(tmp_path):
    code, stdout, stderr = run("predict", "checkpoint=none.ckpt", cwd=tmp_path)

    assert (code, stdout) == (1, "")
    assert stderr == "error: checkpoint=none.ckpt cannot be read: No such file or directory\n"


def test_a_refused_run_leaves_no_folder(tmp_path):
    code, stdout, stderr = run("train", "data=reverse", "model.bridge=concat", "hydra.run.dir=run", cwd=tmp_path)

    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: model.decoder.hidden_size=128 does not fit model.bridge=concat")
    assert stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


SCRIPTS = {path.stem for path in (ROOT / "scripts").glob("[a-z]*.py")}


@pytest.mark.parametrize("script", ["train", "predict", *combinations(SCRIPTS - {"train", "predict"})])
def test_help_loads_neither_torch_nor_lightning(tmp_path, script):
    command = (
        "import atexit, runpy, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        f"sys.argv[1:] = ['--help']; runpy.run_path({str(ROOT / 'scripts' / f'{script}.py')!r}, run_name='__main__')"
    )

    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert "== Config ==" in done.stdout
    assert "hydra" in done.stderr.split()
    assert not {"torch", "pytorch_lightning"} & set(done.stderr.split())


@pytest.mark.parametrize(
    ("override", "message", "end"),
    [
        ("modl=lstm", "Key 'modl' is not in struct", "did you mean model?"),
        ("optimizer.lrr=1", "Key 'lrr' is not in struct", "did you mean optimizer.lr?"),
        ("model=rnn", "Could not find 'model/rnn'", "for a complete stack trace."),
    ],
)
def test_a_mistyped_key_or_option_gets_hydras_own_message_and_the_nearest_key(tmp_path, override, message, end):
    code, _, stderr = run("train", override, cwd=tmp_path)

    assert code == 1
    assert message in stderr
    assert stderr.splitlines()[-1].endswith(end)
    assert "Traceback" not in stderr


SMALL = [override for override in TINY if not override.startswith("trainer")]


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ("debug=fast", "1 of 3 batches"),
        ("debug=overfit trainer.max_epochs=2 trainer.overfit_batches=1", "1 of 3 batches"),
        ("debug=limit trainer.limit_train_batches=1", "1 of 3 batches"),
        ("debug=profiler trainer.limit_train_batches=0.7", "2 of 3 batches"),
        ("trainer.fast_dev_run=true", "1 of 3 batches"),
        ("trainer=cpu trainer.max_epochs=1 trainer.devices=[0]", None),
        ("scheduler=none trainer.max_epochs=1", None),
        ("trainer.max_steps=5 trainer.val_check_interval=2", None),
        ("callbacks=none trainer.max_epochs=1", None),
    ],
    ids=lambda value: str(value).split(" ", maxsplit=1)[0],
)
def test_lightnings_switches_work_and_what_used_part_of_the_data_says_so(tmp_path, overrides, part):
    code, stdout, stderr = run("train", *SMALL, *overrides.split(), "hydra.run.dir=run", cwd=tmp_path)

    assert (code, stderr) == (0, "")
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert content["test"]["exact_match"] >= 0
    if part:
        assert content["training"] == {"part": part}
        assert f"s of training on {part};" in stdout
    assert ("training" in content) is (part is not None)


def test_a_file_is_named_by_a_key_that_a_study_changes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.tsv").write_text("a b\tx\nb\ty\n")
    files = [f"data.{split}=${{dataset}}.tsv" for split in ("train", "val", "test")]
    small = [one for one in TINY if one.startswith(("model", "trainer", "+trainer"))]
    over = ["tune.over={dataset: [one,two]}", "tune.trials=1", "hydra.run.dir=study"]

    code, _, stderr = run("tune", "data=tsv", *files, *small, *over, cwd=tmp_path)

    assert code == 0, stderr
    for number, name in enumerate(("one", "two")):
        assert f"train: {name}.tsv" in (tmp_path / f"study/trials/0/{number}/config.yaml").read_text()
        assert "data.train=${dataset}.tsv" in (tmp_path / f"study/trials/0/{number}/overrides.yaml").read_text()


LAUNCHERS = ("joblib", "submitit_local")
"""Launchers that start Python anew."""


@pytest.mark.parametrize("launcher", ["basic", *(pytest.param(one, marks=pytest.mark.slow) for one in LAUNCHERS)])
def test_a_sweep_goes_on_after_a_failure_and_ends_with_a_summary(tmp_path, launcher):
    sweep = ["-m", *TINY, "model.bridge=zeros,concat", "hydra.sweep.dir=sweep", "seed=7", f"hydra/launcher={launcher}"]

    code, stdout, stderr = (run if launcher == "basic" else run_alone)("train", *sweep, cwd=tmp_path)

    rows = list(csv.reader((tmp_path / "sweep" / "summary.csv").read_text().splitlines()))
    assert code == 1
    assert "Summary" in stdout
    assert "run 1 failed: model.decoder.hidden_size=8 does not fit model.bridge=concat" in stdout
    assert ("error: " in stderr) or launcher != "basic"
    assert "Traceback" not in stderr
    assert [row[0] for row in rows] == ["run", "0", "1"]
    assert (tmp_path / "sweep" / "0" / "best.ckpt").exists()
    assert rows[1][-1] == ""
    assert rows[2][-1].startswith("model.decoder.hidden_size=8")
    assert "1 of 2 runs failed" in (tmp_path / "sweep" / "summary.md").read_text()
    if launcher != "basic":
        return

    code, _, stderr = run("train", *sweep, cwd=tmp_path)  # the same directory again

    assert code == 1
    assert stderr == (
        "error: hydra.sweep.dir=sweep already holds runs; choose another directory, or resume=auto to continue them\n"
    )


@pytest.mark.parametrize(
    ("name", "code", "workers"),
    [
        ("SIGTERM", 143, 1),
        pytest.param("SIGUSR1", 138, 0, marks=pytest.mark.slow),
        pytest.param("SIGINT", 130, 1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_of_a_run_is_survived(tmp_path, name, code, workers):
    # A worker that has just been forked does not know yet what to ignore: let the signal come in mid-epoch.
    command = [*TINY, "data.train_size=20000", "checkpoint.every_n_steps=50", f"data.num_workers={workers}"]
    command += ["hydra.run.dir=run"]
    with started("train", *command, cwd=tmp_path, start_new_session=True) as process:
        while not (tmp_path / "run" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, getattr(signal, name))
        stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == code
    assert f"stopped by {name}; kept: {tmp_path}/run/last.ckpt; continue with" in stdout + stderr
    assert "Traceback" not in stderr


def test_train_evaluate_and_predict_work_on_files_with_odd_names(tmp_path):
    pairs = "".join(f"{letter}{letter}\t{letter}\n" for letter in "abcdefgh")
    odd = "my pairs, a=b.tsv"
    (tmp_path / odd).write_text(pairs)
    quoted = [f"data.{split}='{odd}'" for split in ("train", "val", "test")]
    tsv = [override for override in TINY if not override.startswith("data")]

    code, stdout, stderr = run("train", "data=tsv", *quoted, *tsv, "hydra.run.dir=run", cwd=tmp_path)

    assert (code, stderr) == (0, "")
    assert "exact_match" in stdout
    trained = json.loads((tmp_path / "run" / "metrics.json").read_text())

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoint = f"checkpoint={tmp_path}/run/best.ckpt"
    code, _, stderr = run("evaluate", checkpoint, "hydra.run.dir=evaluation", cwd=elsewhere)

    assert (code, stderr) == (0, "")
    evaluated = json.loads((elsewhere / "evaluation" / "metrics.json").read_text())
    assert evaluated["test"] == pytest.approx(trained["test"])


def test_in_a_terminal_each_line_is_answered_at_once(tiny_checkpoint, tmp_path):
    keyboard, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "scripts" / "predict.py"), f"checkpoint={tiny_checkpoint}"]
    with subprocess.Popen(
        command, cwd=tmp_path, encoding="utf-8", stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert "Ctrl-D ends" in process.stderr.readline()
            for text in ("a b", "c d"):
                os.write(keyboard, f"{text}\n".encode())
                assert process.stdout.readline().endswith("\n")  # before the next line is typed
            os.write(keyboard, b"\x04")
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            os.close(keyboard)
            os.close(terminal)


@pytest.mark.parametrize("script", ["train", "predict"])
def test_ctrl_c_while_a_script_starts_is_one_line(tmp_path, script):
    with started(script, "checkpoint=none.ckpt" if script == "predict" else "data=reverse", cwd=tmp_path) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and "libtorch" not in maps.read_text():  # it imports PyTorch
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("script", "overrides"),
    [("train", ["hydra.run.dir=file/x"]), ("evaluate", ["checkpoint=x", "hydra.run.dir=file/x"]),
     ("train", ["-m", "seed=1,2", "hydra.sweep.dir=file/x"])],
)  # fmt: skip
def test_a_directory_that_cannot_be_made_is_one_line(tmp_path, script, overrides):
    (tmp_path / "file").touch()

    code, stdout, stderr = run(script, *overrides, cwd=tmp_path)

    assert (code, stdout) == (1, "")
    assert re.fullmatch(r"error: hydra\.(run|sweep)\.dir=file/x cannot be written: Not a directory\n", stderr)


def test_a_run_ends_with_commands_that_can_be_copied(tiny_run, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    monkeypatch.setenv("VIRTUAL_ENV", "active")

    predicts, explains, _ = next_steps(tiny_run, str(tiny_run / "best.ckpt"), ["ä", "a 'b"], None)

    assert explains.endswith(f" or python scripts/explain_handoff.py checkpoint={tiny_run}/best.ckpt")
    assert predicts.startswith("try it:       printf ")
    text, _, command = predicts.removeprefix("try it: ").strip().partition(" | ")
    done = subprocess.run(f"{text} | {command.replace('python', sys.executable)}", shell=True, capture_output=True)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 1)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/seq2seq-train"])
    line, *_ = next_steps(tiny_run, str(tiny_run / "best.ckpt"), ["-5 %\tN;PL"], ["a.py", "b.py"])
    assert f" printf '-5 %%\\tN;PL\\n' | seq2seq-predict checkpoint={tiny_run}/best.ckpt 'parts=[a.py,b.py]'" in line
