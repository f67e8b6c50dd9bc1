"""Rules of the layout: which package may import which, and what is in one place only."""

import ast
import sys
import tomllib
from importlib import import_module

import pytest
from conftest import ROOT
from mutants import all_mutants

PACKAGE = ROOT / "src" / "seq2seq"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "errors": [],
    "settings": ["errors"],
    "nn": ["nn"],
    "nn.fast": ["nn.fast"],
    "data": ["data", "settings", "errors"],
    "runs": ["runs", "errors"],
    "decoding": ["decoding", "model", "nn", "data", "settings", "errors"],
    "metrics": ["metrics", "data", "errors"],
    "reporting": ["reporting", "metrics", "decoding", "runs", "errors"],
    "handoff.mistakes": ["nn", "settings", "errors"],
    "handoff.ablation": ["nn", "settings"],
    "handoff.verification": ["handoff.mistakes", "nn"],
    "handoff.picture": ["handoff.mistakes", "handoff.verification", "model", "data", "nn", "reporting"],
    "handoff.study": ["handoff.mistakes", "nn", "metrics", "reporting", "runs"],
    "handoff.example": ["handoff.picture", "handoff.verification", "model", "data", "nn", "errors"],
    "handoff": [],
    "model": ["nn", "data", "handoff.mistakes", "settings", "errors"],
    "checkpoint": ["model", "data", "runs", "errors"],
    "api": ["checkpoint", "model", "data", "decoding", "errors"],
    "training": ["training", "api", "checkpoint", "model", "data", "decoding", "metrics", "nn", "handoff.picture",
                 "reporting", "runs", "settings", "errors"],
    "resuming": ["resuming", "training", "checkpoint", "runs", "settings", "errors"],
    "commands": ["api", "checkpoint", "model", "data", "decoding", "metrics", "nn", "handoff", "reporting", "training",
                 "resuming", "runs", "settings", "errors"],
    "commands.vote": ["commands.evaluate", "runs", "errors"],
    "export": ["export", "api", "checkpoint", "model", "nn", "data", "runs", "errors"],
    "commands.export": ["export", "checkpoint", "handoff.mistakes", "runs", "settings", "errors"],
    "commands.predict": ["export", "api", "model", "decoding", "reporting", "runs", "data", "settings", "errors"],
    "demo": ["errors"],
    "commands.demo": ["demo", "api", "checkpoint", "model", "data", "decoding", "handoff", "nn", "settings", "errors"],
    "tuning": ["tuning", "runs", "errors"],
    "commands.tune": ["tuning", "commands.train", "reporting", "settings", "errors"],
    "benchmark": ["benchmark", "api", "export.backend", "training", "model", "nn", "data", "decoding", "runs.threads",
                  "settings", "errors"],
    "commands.benchmark": ["benchmark", "api", "model", "training", "runs", "settings", "errors"],
}  # fmt: skip
"""The complete import table: module or package, and what it may import of this project. The longest name counts."""

THIRD_PARTY = {
    "errors": set(),
    "nn": {"torch"},
    "runs": {"hydra", "omegaconf", "rich", "yaml"},  # these start in a moment: `--help` and refusals need no torch
}
"""What else the packages at the bottom may import, beside the standard library."""


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """The full names of the modules that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


def entry_of(name):
    """The longest name of the table that a module belongs to."""
    return max((package for package in MAY_IMPORT if within(name, package)), key=len, default=None)


every_module = pytest.mark.parametrize("path", MODULES, ids=module_name)


@every_module
def test_imports_go_one_way(path):
    name = module_name(path)
    if name == "":  # seq2seq/__init__.py
        assert not list(imported(path))
        return
    allowed = MAY_IMPORT[entry_of(name)]

    ours = {other.removeprefix("seq2seq.") for other in imported(path) if within(other, "seq2seq")}

    assert all(any(within(other, package) for package in allowed) for other in ours), ours


@every_module
def test_the_packages_at_the_bottom_load_little(path):
    bottom = module_name(path).split(".")[0]
    if bottom in THIRD_PARTY:
        names = {other.split(".")[0] for other in imported(path)}
        assert names - sys.stdlib_module_names - {"seq2seq"} <= THIRD_PARTY[bottom]


def test_the_table_names_every_package_and_nothing_else():
    names = {module_name(path) for path in MODULES}

    assert all(entry_of(name) for name in names - {""})
    assert set(MAY_IMPORT) <= names


def users_of(module):
    return {
        module_name(path) for path in MODULES if any(within(other, f"seq2seq.{module}") for other in imported(path))
    }


def test_one_module_chooses_the_fast_layers():
    assert {name for name in users_of("nn.fast") if not within(name, "nn.fast")} == {"nn.rnn"}


@pytest.mark.parametrize(
    ("package", "commands"),
    [
        ("benchmark", {"commands.benchmark"}),
        ("export", {"commands.export", "commands.predict", "benchmark.cases"}),
        ("demo", {"commands.demo"}),
        ("tuning", {"commands.tune"}),
    ],
)
def test_what_is_not_the_core_can_be_deleted_with_its_commands(package, commands):
    assert {name for name in users_of(package) if not within(name, package)} == commands


def test_one_module_packs_and_one_knows_how_h_n_is_flattened():
    def users_in_code(*words):
        return {module_name(path) for path in MODULES if any(word in path.read_text("utf-8") for word in words)}

    assert users_in_code("pack_padded_sequence(") == {"nn.rnn"}
    assert users_in_code("unflatten(0", ".flatten(0, 1).contiguous()") - {"nn.fast.rnn"} == {"nn.state"}


def test_one_module_instantiates():
    users = {module_name(path) for path in MODULES if "hydra.utils" in set(imported(path))}

    assert users == {"training.build"}


def test_every_package_has_a_subject():
    vague = {"utils", "helpers", "common", "base", "misc"}

    assert not [module_name(path) for path in MODULES if set(module_name(path).split(".")) & vague]


def test_scripts_are_thin():
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 25


def test_a_wheel_holds_every_package_the_configs_and_a_command_for_each_script():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages, folders = project["tool"]["setuptools"]["packages"], project["tool"]["setuptools"]["package-dir"]
    found = {f"seq2seq.{path.parent.relative_to(PACKAGE)}".replace("/", ".") for path in PACKAGE.rglob("__init__.py")}

    assert project["project"]["name"] == "seq2seq-lightning"  # "seq2seq" is another project
    assert set(packages) == {one.removesuffix("..") for one in found} | {"seq2seq.scripts", "seq2seq.configs"}
    assert folders == {"": "src", "seq2seq.scripts": "scripts", "seq2seq.configs": "configs"}
    assert set(project["project"]["scripts"].values()) == {
        f"seq2seq.scripts.{path.stem}:run" for path in (ROOT / "scripts").glob("[a-z]*.py")
    }
    for command in project["project"]["scripts"].values():
        module, _, function = command.partition(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("mutant", list(all_mutants()), ids=lambda mutant: mutant.name)
def test_every_mutant_still_finds_what_it_edits(mutant):
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")

    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
