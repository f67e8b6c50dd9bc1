"""Rules of the house that a test can hold."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT
from mutants import all_mutants

PACKAGE = ROOT / "src" / "seq2seq"
MODULES = sorted(PACKAGE.rglob("*.py"))
ALLOWED = {
    "errors": set(),
    "nn": set(),
    "nn.fast": {"nn"},
    "nn.decoders": {"nn", "nn.fast"},
    "data": {"errors"},
    "data.sources": {"data", "errors"},
    "runs": {"errors"},
    "decoding": {"nn", "data", "errors"},
    "metrics": {"data"},
    "handoff": {"nn", "errors", "reporting", "runs"},
    "reporting": {"decoding", "runs"},
    "training": {"nn", "data", "decoding", "metrics", "handoff", "runs", "errors"},
    "api": {"nn", "data", "decoding", "training", "errors"},
    "benchmark": {"nn", "data", "decoding", "training", "api", "errors"},
    "commands": {"nn", "data", "decoding", "metrics", "handoff", "reporting", "runs", "training", "api", "errors"},
}
"""Which of our packages each package may import, beside itself."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_between_rooms_go_one_way(path):
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("seq2seq.")}

    assert ours <= ALLOWED.get(room(path), {room(other) for other in MODULES})


def test_the_network_knows_neither_trainer_nor_config():
    used = {name.split(".")[0] for path in (PACKAGE / "nn").glob("*.py") for name in imports(path)}

    assert used <= {"torch", "seq2seq", "logging", "collections", "typing"}


def test_instantiate_stands_in_one_file():
    users = [path.name for path in MODULES if "hydra.utils" in set(imports(path))]

    assert users == ["building.py"]


def test_only_one_file_knows_how_layers_and_directions_are_packed():
    # Whoever wants h_n's packed axis has to go through RNNState.
    users = {path.name for path in MODULES if "unflatten(0" in path.read_text() or "flatten(0, 1)" in path.read_text()}

    assert users - {"module.py", "packing.py"} == {"state.py"}  # those flatten the rows and steps of a batch


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_holds_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_scripts_are_thin():
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 25


def test_the_root_is_the_architecture():
    tracked = {"configs", "src", "scripts", "tests", "docs", "pyproject.toml", "README.md", "Makefile", "LICENSE",
               "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt", ".gitignore", ".ci"}  # fmt: skip

    assert all((ROOT / name).exists() for name in tracked)
    assert not any(
        Path(ROOT, "src", "seq2seq", f"{name}.py").exists() for name in ("utils", "helpers", "common", "misc")
    )


@pytest.mark.parametrize("mutant", list(all_mutants()), ids=lambda mutant: mutant.name)
def test_every_mutant_still_finds_what_it_edits(mutant):
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")

    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
