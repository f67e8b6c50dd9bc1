"""The files of an export, and their content in memory."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from seq2seq.data.vocabulary import BOS, EOS, PAD, UNK
from seq2seq.errors import UserError, import_extra
from seq2seq.export.graphs import make_graphs
from seq2seq.model import TrainedModel
from seq2seq.runs.files import atomic_write, check_regular

FORMAT = 1
"""Increased when older readers cannot read new exports, or this one cannot read older ones."""

ENCODER, STEP, TOKENIZERS = "encoder.onnx", "decoder_step.onnx", "tokenizers.json"
FILES = (ENCODER, STEP, TOKENIZERS)
"""The files of an export."""


class Export(NamedTuple):
    """An exported model.

    Attributes:
        encoder: Content of ``encoder.onnx``.
        step: Content of ``decoder_step.onnx``.
        description: Content of ``tokenizers.json``: the tokenizers of both sides, the ids of special symbols, the
            longest prediction, the handoff, and the checksums of all three files.
    """

    encoder: bytes
    step: bytes
    description: dict[str, Any]


def checksums(encoder: bytes, step: bytes, description: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 checksums of the files; that of the description is over its other keys, as sorted JSON."""
    rest = json.dumps({key: value for key, value in description.items() if key != "sha256"}, sort_keys=True)
    contents = zip(FILES, (encoder, step, rest.encode()), strict=True)
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents}


def export_module(module: TrainedModel) -> Export:
    """Export a trained model; raise a `UserError` if a package of the exporter is not installed."""
    for package in ("onnx", "onnxscript"):
        import_extra(package, "export")
    handoff = module.settings["handoff"]
    encoder, step = make_graphs(module.model, {"handoff": handoff, "seq2seq_export": str(FORMAT)})
    description = {
        "seq2seq_export": FORMAT, "handoff": handoff, "max_length": module.max_length,
        "special": {"pad": PAD, "bos": BOS, "eos": EOS, "unk": UNK},
        **module.tokenizers.to_dicts(),
    }  # fmt: skip
    return Export(encoder, step, description | {"sha256": checksums(encoder, step, description)})


def write_export(export: Export, folder: Path) -> None:
    """Write the files of an export: all of them, or none; raise a `UserError` if they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={folder} cannot be created: {error.strerror}") from error
    description = json.dumps(export.description, indent=2, ensure_ascii=False) + "\n"
    with ExitStack() as files:  # which are renamed once all are complete
        for name, content in zip(FILES, (export.encoder, export.step, description.encode()), strict=True):
            files.enter_context(atomic_write(folder / name, "output")).write_bytes(content)


def read_export(folder: Path) -> Export:
    """Read an export from a folder; raise a `UserError` if a file is missing or damaged, or of another export."""
    try:
        encoder, step, text = (check_regular("checkpoint", folder / name).read_bytes() for name in FILES)
    except OSError as error:
        name = Path(str(error.filename)).name
        raise UserError(f"checkpoint={folder} lacks {name}: {error.strerror}") from error
    try:
        description = json.loads(text)
        found, sums = description["seq2seq_export"], dict(description["sha256"])
        expected = checksums(encoder, step, description)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"checkpoint={folder}: {TOKENIZERS} is damaged; export the model again") from error
    if found != FORMAT:
        raise UserError(f"checkpoint={folder} has format {found}, and this version reads format {FORMAT} only")
    for name in reversed(FILES):  # if the description is damaged, so may be the checksums in it
        if sums.get(name) != expected[name]:
            raise UserError(f"checkpoint={folder}: {name} is damaged or of another export")
    return Export(encoder, step, description)
