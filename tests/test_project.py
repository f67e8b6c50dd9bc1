"""Files about the project agree with each other."""

import re
import tomllib

import yaml
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def make_targets(text):
    return set(re.findall(r"\bmake ([a-z][a-z-]*)", text))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    keys = ("version", "license")
    assert [citation[key] for key in keys] == [PROJECT[key] for key in keys]
    assert (citation["title"], citation["abstract"]) == (PROJECT["name"], PROJECT["description"])


def test_the_workflow_runs_what_ci_runs():
    in_ci = make_targets((ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    tests = make_targets(WORKFLOW["jobs"]["test"]["steps"][-1]["run"])

    assert in_ci >= {"check", "docs", "test", "mutants"}
    assert in_ci <= {*WORKFLOW["jobs"]["targets"]["strategy"]["matrix"]["target"], *tests}


def test_the_workflow_tests_every_python_that_the_project_allows():
    versions = {job["python"] for job in WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["include"]}

    assert min(versions) == PROJECT["requires-python"].removeprefix(">=")
    assert versions == {f"3.{minor}" for minor in range(11, 15)}


def test_make_explains_every_target_but_the_obvious_ones():
    targets = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split())

    explained = set(re.findall(r"^# make ([a-z-]+)", MAKEFILE, flags=re.MULTILINE))
    assert targets - {"format", "clean"} <= explained <= targets
    assert all(re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE) for target in targets)


def test_dependencies_are_pinned_once_and_in_order():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    names = [pin.partition("==")[0].lower() for pin in pins]

    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert len(set(names)) == len(names)
    assert pins == sorted(pins, key=str.lower)
