"""Checkpoints: plain numbers, strings, lists, dicts and tensors, so that loading one runs no code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seq2seq.data import tokenizer_from_dict
from seq2seq.data.lines import open_file
from seq2seq.errors import UserError
from seq2seq.runs.directory import flatten_keys
from seq2seq.training.module import CHECKPOINT_FORMAT, Seq2SeqModule
from seq2seq.training.saving import is_whole

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
            if not is_whole(file):
                raise ValueError
            file.seek(0)
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
    with damage_named(path, key):
        check_weights(content["state_dict"], content[HYPERPARAMETERS]["model"])
    return content


@contextmanager
def damage_named(path: str, key: str) -> Iterator[None]:
    """Turn the errors that odd content causes into one of the user's."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, key, error) from error


def damaged(path: str, key: str, error: Exception) -> UserError:
    """Return the user's error for a file whose odd content has caused another."""
    reason = str(error).splitlines() or [type(error).__name__]
    return UserError(f"{key}={path} is damaged: {reason[0]}")


def check_weights(weights: Mapping[str, Tensor], model: Mapping[str, Any]) -> None:
    """Raise if weights are no finite numbers, or could not belong to a model of these settings.

    Building a model of absurd sizes would take the machine's memory before it fails.

    Raises:
        ValueError: If they are or could not.
    """
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.dtype != next(iter(weights.values())).dtype:
            raise ValueError(f"{name} holds numbers of type {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    largest = max(size for tensor in weights.values() for size in tensor.shape)
    for name, value in flatten_keys(model):
        limit = len(weights) if name.endswith("num_layers") else largest
        if isinstance(value, int) and value > limit:
            raise ValueError(f"model.{name}={value} does not fit the weights")


def load_module(path: str, key: str = "checkpoint") -> Seq2SeqModule:
    """Load a trained model on the CPU, ready to predict; see `read_checkpoint` for the errors."""
    content = read_checkpoint(path, key)
    with damage_named(path, key):
        module = Seq2SeqModule(**upgraded(content[HYPERPARAMETERS]))
        module.load_state_dict(content["state_dict"])
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
