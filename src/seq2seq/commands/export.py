"""Export a trained model to ONNX, and compare the result with it."""

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from seq2seq.checkpoint import load_model
from seq2seq.errors import UserError
from seq2seq.export.backend import open_export
from seq2seq.export.files import FILES, export_module, write_export
from seq2seq.export.parity import differences
from seq2seq.handoff.mistakes import RIGHT
from seq2seq.runs.files import check_free, user_path
from seq2seq.settings import CommandSettings, read_settings, resolve_config

TOLERANCE = 1e-3
"""Rounding differs by less, also where attention is sharp; a wrong operator or order of gates differs by far more."""


class ExportSettings(CommandSettings):
    """The keys of ``configs/export.yaml``."""

    checkpoint: str
    output: str
    overwrite: bool


def export(config: DictConfig) -> None:
    """Export, compare, write and report.

    Raises:
        UserError: If the checkpoint or a setting is not valid, the extra ``export`` is not installed, or the export
            computes something else than the checkpoint.
    """
    settings = read_settings(ExportSettings, resolve_config(config))
    folder = user_path("output", settings.output)
    for name in FILES:
        check_free("output", folder / name, overwrite=settings.overwrite)
    module = load_model(settings.checkpoint)
    exported = export_module(module)
    found = differences(module, open_export(exported))
    if not max(found.values()) <= TOLERANCE:
        raise UserError(f"the export differs from the checkpoint, and was not written: {found}")
    write_export(exported, folder)
    table = Table("part", "largest difference")
    for name, difference in found.items():
        table.add_row(name, f"{difference:.0e}")
    console = Console()
    console.print(table)
    if (handoff := module.settings["handoff"]) != RIGHT:
        console.print(f"The model was trained with the mistake handoff={handoff}; the export says so.")
    console.print(f"written to {folder}", soft_wrap=True, markup=False)
