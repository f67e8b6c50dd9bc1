"""The README is true: all its commands run in order in a fresh copy, its Python runs, its links lead somewhere."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from mutants import all_mutants

README = (ROOT / "README.md").read_text(encoding="utf-8")
SKIPPED = ("git clone ", "source ", "#")  # the copy is the clone, and the environment is that of this test


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


LINES = "".join(blocks("bash")).replace("\\\n", "").splitlines()
COMMANDS = [line for line in LINES if not line.startswith(SKIPPED)]


def runnable(command):
    """A command of the page; the server is asked for its page and then ended."""
    if "scripts/demo.py" not in command:
        return command
    url = re.search(r"http://\S+(?=;)", command)[0]
    asked = f"curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused {url} > /dev/null"
    return f"{command.partition(' #')[0]} & {asked}; kill -INT $!; wait $! || true"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project as a clone has it, with the environment of these tests."""
    folder = tmp_path_factory.mktemp("readme") / "seq2seq"
    own = ("src", "scripts", "configs", "examples", "docs", "tests")
    for name in own:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder)  # with its time, so that make does not install again
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.mark.docs
def test_every_command_runs_from_top_to_bottom(copy):
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(copy / "src"),
    }
    for command in map(runnable, COMMANDS):
        done = subprocess.run(
            ["bash", "-c", command], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (copy / "iso.txt").read_text() == "2003-01-02\n2003-01-02\n"

    example = subprocess.run([sys.executable, "-c", blocks("python")[-1]], cwd=copy, capture_output=True, text=True)
    assert ast.literal_eval(example.stdout) == ["2003-01-02", "2003-01-02"]


def test_all_scripts_are_shown():
    shown = set(re.findall(r"scripts/(\w+)\.py", README))

    assert shown == {path.stem for path in (ROOT / "scripts").glob("[a-z]*.py")}


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make\s+([a-z][\w-]*)", README, flags=re.MULTILINE))

    assert targets >= {"train", "test", "mutants", "docs"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_mutants_are_counted():
    assert f"breaks the project in {len(list(all_mutants()))} ways" in README.replace("\n", " ")


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
