"""Checkpoints: plain numbers, strings, lists, dicts and tensors, so that reading one runs no code.

================ =========================================================== ==================================
key              content                                                     written by
================ =========================================================== ==================================
state_dict       the weights, those of the network below ``model.``          Lightning
hyper_parameters the arguments of `seq2seq.training.module.Seq2SeqModule`    Lightning
seq2seq_format   see `FORMAT`                                                `seq2seq.training.module`
seq2seq_config   the config of the run, compared when it resumes             `seq2seq.training.module`
seq2seq_log      ``metrics.csv`` so far                                      `seq2seq.resuming.saving`
the others       what Lightning needs to resume                              Lightning
================ =========================================================== ==================================
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from seq2seq.data.lines import open_file
from seq2seq.errors import UserError
from seq2seq.model import TrainedModel, trained_model
from seq2seq.runs.files import check_regular

FORMAT = 1
"""Raised when older versions cannot read new checkpoints, or this version cannot read older ones.

A new option does not raise it: it gets a default that keeps the old behaviour, so that checkpoints from before load.
"""

HYPERPARAMETERS = "hyper_parameters"
"""Key under which Lightning keeps the arguments of the module's constructor."""

NETWORK = "model."
"""Begins the names of the network's weights; the LightningModule keeps it under that name."""


def is_whole(checkpoint: Path | IO[bytes]) -> bool:
    """Return whether a checkpoint is complete, by the checksums of its parts, which PyTorch writes but never reads."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except Exception:  # arbitrary bytes raise arbitrary errors
        return False


def read_checkpoint(path: str, key: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint that training wrote; ``key`` is the setting that named it.

    Raises:
        UserError: If it cannot be read, is not a checkpoint of this project, or has another format.
    """
    instead = "give a best.ckpt or last.ckpt of a run"
    check_regular(key, path)
    with open_file(path, key) as opened:
        try:
            if not is_whole(opened):
                raise ValueError
            opened.seek(0)
            content = torch.load(opened, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{key}={path} is not a checkpoint or is damaged; {instead}") from error
    found = content.get("seq2seq_format") if isinstance(content, dict) else None
    if found is None:
        raise UserError(f"{key}={path} is a checkpoint of another program; {instead}")
    if found != FORMAT:
        raise UserError(f"{key}={path} has format {found}, and this version reads format {FORMAT} only")
    with about_checkpoint(path, key):
        check_weights(content["state_dict"], content[HYPERPARAMETERS]["model"])
    return content


@contextmanager
def about_checkpoint(path: str, key: str = "checkpoint") -> Iterator[None]:
    """Turn what odd content of a file causes into an error of the user's, but not that a package is not installed."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__cause__, ImportError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        unknown = re.match(r"(model\.(attention|bridge|decoder\.kind)|tokens\S*)=\S+ must be one of", reason)
        problem = "needs a part that is not registered (give parts=FILE, or import it)" if unknown else "is damaged"
        raise UserError(f"{key}={path} {problem}: {reason}") from error


def check_weights(weights: Mapping[str, Tensor], model: Mapping[str, Any]) -> None:
    """Raise a ValueError if weights are no finite numbers, or could not belong to a model of these settings.

    Building a model of absurd sizes would take the machine's memory before it fails.
    """
    network = {name: tensor for name, tensor in weights.items() if name.startswith(NETWORK)}
    for name, tensor in network.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    largest = max(size for tensor in network.values() for size in tensor.shape)
    for part in ("encoder", "decoder"):
        for name, value in model[part].items():
            limit = len(network) if name == "num_layers" else largest
            if isinstance(value, int) and value > limit:
                raise ValueError(f"model.{part}.{name}={value} does not fit the weights")


def load_model(path: str) -> TrainedModel:
    """Load a trained model on the CPU, ready to predict; see `read_checkpoint` for the errors."""
    content = read_checkpoint(path)
    with about_checkpoint(path):
        trained = trained_model(content[HYPERPARAMETERS])
        found = content["state_dict"].items()
        weights = {name.removeprefix(NETWORK): tensor for name, tensor in found if name.startswith(NETWORK)}
        for name, own in trained.model.state_dict().items():
            if name in weights and weights[name].is_floating_point() is not own.is_floating_point():
                raise ValueError(f"{NETWORK}{name} holds numbers of type {weights[name].dtype}")
        trained.model.load_state_dict(weights)
        trained.model.eval()
        return trained
