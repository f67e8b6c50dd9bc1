"""The notebook is true: its cells run, and their outputs are those that are stored in it.

``python tests/test_notebook.py`` runs the notebook and stores it as the tests want it. What differs from machine to
machine is not stored: cells with such outputs are tagged ``varies``.
"""

import importlib.util
import re

import nbformat
import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "handoff_lesson.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What is stored about the kernel: nothing of the machine on which it ran last."""


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def varies(cell):
    return "varies" in cell.metadata.get("tags", [])


def execute(notebook):
    from nbclient import NotebookClient  # here, as only `make docs-test` needs it

    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, coalesce_streams=True, resources=folder).execute()
    return notebook


def as_stored(notebook):
    """The text of the file of an executed notebook."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {"tags": ["varies"]} if varies(cell) else {}
    for cell in code_cells(notebook).values():
        cell.execution_count = None
        cell.outputs = [] if varies(cell) else cell.outputs
    return nbformat.writes(notebook) + "\n"


@pytest.mark.docs
def test_the_cells_run_and_give_the_stored_outputs():
    notebook = execute(read())

    shown = {name: str(cell.outputs) for name, cell in code_cells(notebook).items()}
    assert [name for name in shown if "image/png" in shown[name]] == ["heatmap", "handoff-picture"]
    assert as_stored(notebook).splitlines() == NOTEBOOK.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def answers():
    """What the last cell prints after the change of each exercise."""
    notebook = read()
    cells = [cell for cell in notebook.cells if not varies(cell)]
    exercise, table = code_cells(notebook)["own-encoder"], cells[-1].source
    changes = re.findall(r"^\| \d \| `(.+)` \| `(.+)` \|$", table, flags=re.MULTILINE)
    for old, new in changes:
        assert exercise.source.count(old) == 1
        cells.append(nbformat.v4.new_code_cell(exercise.source.replace(old, new)))
    notebook.cells = cells
    return [cell.outputs[0].text for cell in execute(notebook).cells[-len(changes) :]]


A, B = "sequence 0", "sequence 1"


@pytest.mark.docs
@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        (1, {f"layer {place}, {sequence}" for place in ("0 backward", "1 forward") for sequence in (A, B)}),
        (2, {f"layer {layer} {place}" for layer in (0, 1) for place in (f"backward, {A}", f"forward, {B}")}),
        (3, {f"layer {layer} {direction}, {B}" for layer in (0, 1) for direction in ("forward", "backward")}),
    ],
)
def test_an_exercise_names_what_is_wrong(answers, number, wrong):
    assert len(answers) == 3
    assert set(re.findall(r"layer \d \w+, sequence \d", answers[number - 1])) == wrong


def test_nothing_that_varies_is_stored():
    notebook = read()

    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    for name, cell in code_cells(notebook).items():
        assert cell.execution_count is None, name
        assert not (varies(cell) and cell.outputs), name
        assert all(output.output_type == "stream" for output in cell.outputs), name


@pytest.mark.parametrize("found", [True, False])
def test_the_first_cell_installs_the_project_only_if_it_is_missing(found, monkeypatch):
    source = next(iter(code_cells(read()).values())).source
    (command,) = re.findall(r"%pip (.*)", source)
    ran = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"seq2seq": found or None}[name])

    exec(source.replace(f"%pip {command}", "ran.append(1)"), {"ran": ran})

    assert ran == ([] if found else [1])
    constraints, project = (NOTEBOOK.parent / word for word in command.split() if word.startswith(".."))
    assert constraints.resolve() == ROOT / "constraints.txt"
    assert project.resolve() == ROOT


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", "\n".join(cell.source for cell in read().cells))

    assert len(links) > 3
    assert not [link for link in links if not (NOTEBOOK.parent / link).exists()]


if __name__ == "__main__":
    NOTEBOOK.write_text(as_stored(execute(read())), encoding="utf-8")
