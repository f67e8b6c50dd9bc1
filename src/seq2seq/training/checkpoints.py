"""Checkpoints: plain numbers, strings, lists, dicts and tensors, so that loading one runs no code."""

from collections.abc import Mapping
from typing import Any

import torch

from seq2seq.data import tokenizer_from_dict
from seq2seq.data.lines import open_file
from seq2seq.errors import UserError
from seq2seq.training.module import CHECKPOINT_FORMAT, Seq2SeqModule

HYPERPARAMETERS = "hyper_parameters"
"""Key under which Lightning keeps the arguments of the module's constructor."""


def read_checkpoint(path: str, key: str) -> dict[str, Any]:
    """Read a checkpoint that training wrote.

    Args:
        path: The file.
        key: The setting that named it, for the error.

    Raises:
        UserError: If it cannot be read, is not a checkpoint of this project, or has another format.
    """
    with open_file(path, key) as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # arbitrary bytes raise arbitrary errors
            raise UserError(
                f"{key}={path} is not a checkpoint or is damaged; give a best.ckpt or last.ckpt of a run"
            ) from error
    found = content.get("seq2seq_format") if isinstance(content, dict) else None
    if found is None:
        raise UserError(f"{key}={path} is a checkpoint of another program; give a best.ckpt or last.ckpt of a run")
    if found != CHECKPOINT_FORMAT:
        raise UserError(f"{key}={path} has format {found}, and this version reads format {CHECKPOINT_FORMAT} only")
    return content


def load_module(path: str, key: str = "checkpoint") -> Seq2SeqModule:
    """Load a trained model on the CPU, ready to predict; see `read_checkpoint` for the errors."""
    content = read_checkpoint(path, key)
    try:
        module = Seq2SeqModule(**upgraded(content[HYPERPARAMETERS]))
        module.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{key}={path} is damaged: {str(error).splitlines()[0]}") from error
    return module.eval()


def upgraded(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of an earlier checkpoint of this format as `Seq2SeqModule` takes them today."""
    now = {key: value for key, value in hyperparameters.items() if key != "optimizer"}
    model = dict(now["model"])
    num_heads = model.pop("num_heads", None)  # before attentions had options
    if model["attention"] == "multihead" and num_heads is not None:
        model["attention"] = {"name": "multihead", "num_heads": num_heads}
    sides = ("source_tokenizer", "target_tokenizer")
    tokenizers = {key: tokenizer_from_dict(now[key]).to_dict() for key in sides if key in now}
    return now | tokenizers | {"model": model}
