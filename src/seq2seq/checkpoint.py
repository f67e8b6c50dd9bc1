"""Checkpoints: plain numbers, strings, lists, dicts and tensors, so that loading one runs no code."""

import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from seq2seq.errors import UserError
from seq2seq.files import replacing
from seq2seq.module import CHECKPOINT_FORMAT, Seq2SeqModule

HYPERPARAMETERS = "hyper_parameters"
"""Where Lightning keeps the arguments of the module's constructor."""


def read_checkpoint(path: str, key: str) -> dict[str, Any]:
    """Read a checkpoint that training wrote.

    Args:
        path: The file.
        key: The setting that named it, for the error.

    Raises:
        UserError: If it cannot be read, is no checkpoint of ours, or is one of another format.
    """
    try:
        content = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what arbitrary bytes raise is arbitrary
        raise UserError(f"{key}={path} is no checkpoint; give a best.ckpt or last.ckpt of a run") from error
    found = content.get("seq2seq_format") if isinstance(content, dict) else None
    if found is None:
        raise UserError(f"{key}={path} is a checkpoint of another program; give a best.ckpt or last.ckpt of a run")
    if found != CHECKPOINT_FORMAT:
        raise UserError(f"{key}={path} has format {found}, and this version reads format {CHECKPOINT_FORMAT} only")
    return content


def load_module(path: str, key: str = "checkpoint") -> Seq2SeqModule:
    """Load a trained model on the CPU, ready to predict; see `read_checkpoint` for the errors."""
    content = read_checkpoint(path, key)
    module = Seq2SeqModule(**content[HYPERPARAMETERS])
    module.load_state_dict(content["state_dict"])
    return module.eval()


class RunCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in the run's directory, under the same name always.

    A run that resumes in another directory takes the checkpoint along. Lightning's own forgets its score then, and
    takes whatever comes next for better.

    Args:
        output_dir: The run's directory.
        name: Of the file, without its suffix.
        monitor: What the best is judged by, the higher the better; None keeps the last one.
    """

    def __init__(self, output_dir: Path, name: str, monitor: str | None) -> None:
        super().__init__(
            output_dir,
            filename=name,
            monitor=monitor,
            mode="max" if monitor else "min",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.path = output_dir / f"{name}{self.FILE_EXTENSION}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the state in a checkpoint, wherever its run's directory was."""
        kept = Path(state_dict["best_model_path"])
        if not kept.exists():  # it came without its best; the next one is the best that there is
            return
        if kept != self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, "resume") as temporary:
                shutil.copyfile(kept, temporary)
        here = {"dirpath": self.dirpath, "best_model_path": str(self.path), "kth_best_model_path": str(self.path)}
        scores = {str(self.path): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict(state_dict | here | {"best_k_models": scores})
