"""The README is true: its commands run (made small), its Python runs, its links lead somewhere."""

import re
import shlex
import shutil
import sys
from contextlib import nullcontext

import hydra
import pytest
from conftest import ROOT, TINY

from seq2seq.commands.demo import demo
from seq2seq.commands.evaluate import evaluate
from seq2seq.commands.explain_handoff import explain
from seq2seq.commands.export import export
from seq2seq.commands.predict import predict
from seq2seq.commands.score import score
from seq2seq.commands.train import train
from seq2seq.commands.tune import tune

README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL_MODEL = [override for override in TINY if override.startswith(("model.", "trainer."))]
SMALL_DATA = ["data.train_size=40", "data.val_size=40", "data.test_size=40"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [line.split("   #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
SCRIPTS = [command for command in COMMANDS if "scripts/" in command]
MADE = [re.sub(r'make train ARGS="(.*)"', r"python scripts/train.py \1", c) for c in COMMANDS if "ARGS=" in c]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, compose):
    """What the README's first command leaves, made small."""
    output_dir = tmp_path_factory.mktemp("readme") / "first"
    train(compose("train", *SMALL_MODEL, *SMALL_DATA), output_dir)
    return output_dir


@pytest.fixture
def folder(tmp_path, monkeypatch, first_run):
    """A folder with the files that the README speaks of."""
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("a b\tx y\nc\tz\nb a\ty\n")
    (tmp_path / "dates.txt").write_text("jeudi 2 janvier 2003\n")
    for name in ("first", "own"):
        shutil.copytree(first_run, tmp_path / "outputs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def single_run(overrides):
    """The first run of a sweep."""
    return [o if "[" in o else o.split(",")[0] for o in overrides if o != "-m"]


RUNS = [pytest.param(one, marks=pytest.mark.pictures) if "explain" in one else one for one in SCRIPTS + MADE]


@pytest.mark.parametrize("command", RUNS)
def test_every_script_command_runs(command, folder, compose, monkeypatch):
    words = shlex.split(command.rpartition("|")[2])
    script, overrides = re.search(r"scripts/(\w+)\.py", words[1]).group(1), single_run(words[2:])
    output_dir = folder / "run"
    output_dir.mkdir()
    if script == "train":
        files = any(override in ("data=tsv", "experiment=g2p") for override in overrides)
        # What makes the model small comes first, so that the command's own choices stand.
        sizes = [size for size in SMALL_MODEL if size.split("=")[0] not in {o.split("=")[0] for o in overrides}]
        fitting = ["model.encoder.hidden_size=128"] if "bridge=concat" in command else []
        train(compose("train", *sizes, *fitting, *([] if files else SMALL_DATA), *overrides), output_dir)
        assert (output_dir / "metrics.json").exists()
    elif script == "evaluate":
        evaluate(compose("evaluate", *overrides, "trainer=cpu"), output_dir, overrides)
        assert (output_dir / "metrics.json").exists()
    elif script == "tune":
        small = [*SMALL_MODEL, *SMALL_DATA, *overrides, "tune.trials=1"]
        with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            assert tune(hydra.compose("tune", small), output_dir, small)
    elif script == "export":
        export(compose("export", *overrides))
        assert (folder / "outputs" / "export" / "encoder.onnx").exists()
    elif script == "demo":
        monkeypatch.setattr("seq2seq.commands.demo.listen", lambda *_: nullcontext())
        monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: output_dir.joinpath("served").touch())
        demo(compose("demo", *overrides))
        assert (output_dir / "served").exists()
    elif script == "predict":
        if "backend=onnx" in overrides:  # which reads what the command before has written
            export(compose("export", "checkpoint=outputs/first/best.ckpt", "output=outputs/export"))
        (folder / "texts.txt").write_text("jeudi 2 janvier 2003\n")
        with (folder / "texts.txt").open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            predict(compose("predict", *overrides))
    elif script == "score":
        score(compose("score", *overrides), overrides)
        assert (folder / "scores.tsv").read_text().count("\n") == 4
    else:
        assert explain(compose("explain_handoff", *overrides), overrides).stat().st_size > 10_000


def test_all_scripts_are_shown():
    shown = set(re.findall(r"scripts/(\w+)\.py", README))

    assert shown == {path.stem for path in (ROOT / "scripts").glob("[a-z]*.py")}


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}

    assert targets >= {"train", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


@pytest.mark.usefixtures("folder")
def test_the_python_block_runs_in_three_lines(capsys):
    (block,) = blocks("python")

    exec(block, {})

    assert len(block.replace("\n\n", "\n").splitlines()) == 3
    assert capsys.readouterr().out.count("'") == 4  # two predictions


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)

    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        assert (ROOT / path).exists(), link
        if anchor:
            headings = re.findall(r"^##+ (.*)$", (ROOT / (path or "README.md")).read_text(), flags=re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, link
