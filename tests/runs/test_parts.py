"""Parts of one's own are imported by name, by file, or by an entry point."""

import sys
from importlib.metadata import EntryPoint

import pytest
from omegaconf import OmegaConf

from seq2seq.errors import UserError
from seq2seq.runs.parts import import_parts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module that leaves a trace; it and what it imports are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    (tmp_path / "own_parts.py").write_text("registered = True")
    (tmp_path / "broken_parts.py").write_text("import absent_library")
    (tmp_path / "folder_only").mkdir()
    for name in ("my.parts.py", "types.py"):
        (tmp_path / name).touch()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("given", ["own_parts.py", "./own_parts.py", ["own_parts.py"]])
def test_a_file_is_imported(folder, given):
    import_parts(OmegaConf.create({"parts": given}))

    assert sys.modules["own_parts"].registered
    assert str(folder) in sys.path  # so that worker processes find it, too


@pytest.mark.usefixtures("folder")
def test_a_module_is_imported():
    import_parts(OmegaConf.create({"parts": "own_parts"}))

    assert sys.modules["own_parts"].registered


@pytest.mark.usefixtures("folder")
def test_an_installed_package_needs_no_key(monkeypatch):
    entry = EntryPoint("mine", "own_parts", "seq2seq.parts")
    monkeypatch.setattr("seq2seq.runs.parts.entry_points", lambda group: [entry] if group == entry.group else [])

    import_parts(OmegaConf.create({"parts": None}))

    assert sys.modules["own_parts"].registered


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent.py", r"^parts=absent\.py does not exist$"),
        ("absent", r"^parts=absent is not a module that Python finds, or a file that ends in \.py"),
        ("absent.inner", r"^parts=absent\.inner is not a module"),
        ("", "^parts= is not a module"),
        (".foo", r"^parts=\.foo is not a module"),
        ("folder_only", "^parts=folder_only is not a module"),
        ("my.parts.py", r"^parts=my\.parts\.py is not a module .* like a module's$"),
        ("types.py", r"^parts=types\.py has the name of another module, .*; rename the file$"),
        ("${nope}", "^parts: Interpolation key 'nope' not found"),
    ],
)
def test_what_is_not_there_is_one_line(given, message):
    with pytest.raises(UserError, match=message):
        import_parts(OmegaConf.create({"parts": given}))


@pytest.mark.usefixtures("folder")
def test_an_error_inside_a_part_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError, match="absent_library"):
        import_parts(OmegaConf.create({"parts": "broken_parts.py"}))


def test_a_checkpoint_that_needs_a_part_says_so(tiny_checkpoint, tmp_path):
    import torch

    from seq2seq.checkpoint import load_model

    content = torch.load(tiny_checkpoint, weights_only=True)
    content["hyper_parameters"]["model"]["attention"] = "of_a_fork"
    torch.save(content, tmp_path / "x.ckpt")

    with pytest.raises(UserError, match=r"x\.ckpt needs a part that is not registered .*parts=FILE.*: .*=of_a_fork"):
        load_model(str(tmp_path / "x.ckpt"))
