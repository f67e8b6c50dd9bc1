"""Parts of one's own: modules that register attentions, decoders, tokenizers, ... when they are imported."""

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from seq2seq.errors import UserError

GROUP = "seq2seq.parts"
"""The entry points of installed packages that name such modules."""


def import_parts(config: DictConfig) -> None:
    """Import the modules of all entry points, and those that the key ``parts`` of a command's config names.

    ``parts`` is a file, ``parts.py``, or the name of a module, or a list of these. It is never read from a checkpoint,
    which must not decide what code runs.

    Raises:
        UserError: If there is no such file or module.
    """
    for entry in entry_points(group=GROUP):
        entry.load()
    try:
        given = config.parts
        names = [*given] if isinstance(given, ListConfig) else [] if given is None else [given]
    except OmegaConfBaseException as error:
        raise UserError(f"parts: {str(error).splitlines()[0]}") from error
    for name in names:
        import_part(str(name))


def import_part(name: str) -> None:
    """Import a module by its name or its file; raise a `UserError` if there is none, or if it cannot be told apart."""
    path, module = Path(name).expanduser(), name
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"parts={name} does not exist")
        sys.path.insert(0, str(path.parent.resolve()))  # so that worker processes find it, too
        module = path.stem
    wrong = f"parts={name} is not a module that Python finds, or a file that ends in .py and has a name like a module's"
    if not all(map(str.isidentifier, module.split("."))):
        raise UserError(wrong)
    try:
        found = importlib.import_module(module).__file__
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module lacks another one
        raise UserError(wrong) from error
    if found is None:  # a folder
        raise UserError(wrong)
    if path.suffix == ".py" and Path(found).resolve() != path.resolve():
        raise UserError(f"parts={name} has the name of another module, {found}; rename the file")
