"""What is not the core can be deleted: a copy of the project without it trains, evaluates and predicts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY

DELETED = ("export", "demo", "tuning", "benchmark", "handoff/study.py")
"""Packages and modules that are deleted, each with its command; all are below ``src/seq2seq``."""

WHAT_REMAINS = """
import importlib, sys
from pathlib import Path

from hydra import compose, initialize_config_dir

copy = Path.cwd()
for name in sys.argv[1].split(","):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert name.startswith(error.name), error
    else:
        raise AssertionError(f"{name} can be imported")

from seq2seq.commands.evaluate import evaluate
from seq2seq.commands.predict import predict
from seq2seq.commands.train import train

def config(name, *overrides):
    with initialize_config_dir(str(copy / "configs"), version_base="1.3"):
        return compose(name, list(overrides))

(copy / "run").mkdir()
(copy / "evaluation").mkdir()
train(config("train", *sys.argv[2:]), copy / "run")
evaluate(config("evaluate", "checkpoint=run/best.ckpt", "trainer=cpu"), copy / "evaluation", [])
predict(config("predict", "checkpoint=run/best.ckpt", "input=words.txt", "output=predictions.txt", "device=cpu"))
files = [Path(module.__file__) for name, module in sys.modules.items() if name.partition(".")[0] == "seq2seq"]
assert files and all(file.is_relative_to(copy) for file in files), files
"""


@pytest.fixture
def copied(tmp_path):
    """A copy of the project without what can be deleted."""
    for folder in ("src/seq2seq", "configs", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "src" / "seq2seq"
    for name in DELETED:
        path = package / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        command = {"tuning": "tune"}.get(name, name)
        for file in (package / "commands" / f"{command}.py", tmp_path / "scripts" / f"{command}.py"):
            file.unlink(missing_ok=name == "handoff/study.py")
    return tmp_path


def test_a_copy_without_what_can_be_deleted_trains_evaluates_and_predicts(copied):
    (copied / "words.txt").write_text("a b c\nd e\n")
    names = ",".join("seq2seq." + name.removesuffix(".py").replace("/", ".") for name in DELETED)
    # Without `site`, no editable install supplies what is deleted: only these folders are searched.
    paths = [str(copied / "src"), *(path for path in sys.path if path and not Path(path).is_relative_to(ROOT / "src"))]
    start = f"import sys; sys.path[:0] = {paths!r}\n{WHAT_REMAINS}"

    done = subprocess.run(
        [sys.executable, "-S", "-c", start, names, *TINY], cwd=copied, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len((copied / "predictions.txt").read_text().splitlines()) == 2
    assert (copied / "evaluation" / "metrics.json").exists()
