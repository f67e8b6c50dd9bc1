"""Predictions for new text: three lines of Python, or `scripts/predict.py`."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from seq2seq.building import plain
from seq2seq.checkpoint import load_module
from seq2seq.data.corpus import Sequences
from seq2seq.data.lines import decode_lines, open_file
from seq2seq.data.vocabulary import BOS
from seq2seq.errors import UserError, check_count
from seq2seq.files import replacing
from seq2seq.module import Seq2SeqModule
from seq2seq.search import greedy, to_lists

CHUNK = 100
"""How many batches of lines are read before they are sorted by length and predicted: memory stays bounded."""


class Alignment(NamedTuple):
    """Where the decoder looked.

    Attributes:
        source: Source tokens, S of them.
        target: Predicted tokens and, unless the prediction was cut, the end; T of them.
        weights: Attention, ``(T, S)``.
    """

    source: list[str]
    target: list[str]
    weights: Tensor


class Predictor:
    """Predicts target texts for source texts.

    Args:
        module: A trained model.
        device: Where to compute: ``cpu``, ``cuda``, ... or ``auto``.
        max_length: Most tokens of a prediction; by default what the checkpoint says.

    Raises:
        UserError: If the device is unknown or absent.
    """

    def __init__(self, module: Seq2SeqModule, device: str = "cpu", max_length: int | None = None) -> None:
        self.module = module.to(find_device(device)).eval()
        self.max_length = module.max_length if max_length is None else check_count("search.max_length", max_length)

    def __call__(self, texts: Sequence[str], batch_size: int = 64) -> list[str]:
        """Return the prediction for each text, in order; an empty text gives an empty one."""
        encoded = [self.module.source.encode(text) for text in texts]
        filled = [row for row, ids in enumerate(encoded) if ids and texts[row].strip()]
        filled.sort(key=lambda row: len(encoded[row]))
        predictions = [""] * len(texts)
        for start in range(0, len(filled), batch_size):
            rows = filled[start : start + batch_size]
            for row, ids in zip(rows, self._decode([encoded[row] for row in rows]), strict=True):
                predictions[row] = self.module.target.decode(ids)
        return predictions

    @torch.inference_mode()
    def _decode(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        sequences = Sequences(sources)
        source = sequences.padded(torch.arange(len(sequences))).to(self.module.device)
        encoded = self.module.model.encode(source, sequences.lengths)
        return to_lists(greedy(self.module.model, encoded, self.max_length))

    @torch.inference_mode()
    def align(self, text: str) -> Alignment | None:
        """Return where the decoder looked while it predicted for ``text``; None without attention."""
        ids = self.module.source.encode(text)
        target = self._decode([ids])[0]
        ended = ["end"] if len(target) < self.max_length else []
        # One law: the whole prediction in one call gives the weights that each step had.
        device = self.module.device
        source, inputs = torch.tensor([ids], device=device), torch.tensor([[BOS, *target]], device=device)
        weights = self.module.model(source, torch.tensor([len(ids)]), inputs).weights
        if weights is None:
            return None
        tokens = self.module.target.vocabulary.tokens(target) + ended
        return Alignment(self.module.source.split(text), tokens, weights[0, : len(tokens)].cpu())


def load(checkpoint: str | Path, device: str = "cpu") -> Predictor:
    """Load a checkpoint as something that predicts: ``load("best.ckpt")(["jeudi 2 janvier 2003"])``.

    Raises:
        UserError: If it is no checkpoint of ours.
    """
    return Predictor(load_module(str(checkpoint)), device)


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` takes an accelerator if there is one."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} is not available here; use auto or cpu") from error


def predict(config: DictConfig) -> None:
    """Predict line by line, from ``input`` or stdin to ``output`` or stdout.

    Raises:
        UserError: If the checkpoint, a file or a line is not what it must be.
    """
    settings = plain(config)
    given, wanted = settings["input"], settings["output"]
    batch_size = check_count("batch_size", settings["batch_size"])
    module = load_module(settings["checkpoint"])
    predictor = Predictor(module, settings["device"], settings["search"]["max_length"])
    with sys.stdin.buffer if given is None else open_file(given, "input") as source:
        lines = decode_lines(source, given or "<stdin>")
        if wanted is None:
            with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", closefd=False) as stdout:
                predict_lines(predictor, lines, stdout, batch_size)
            return
        with (
            replacing(Path(wanted).expanduser(), "output") as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            predict_lines(predictor, lines, file, batch_size)


def predict_lines(predictor: Predictor, lines: Iterator[tuple[int, str]], output: IO[str], batch_size: int) -> None:
    """Write one line for each line, in order."""
    while chunk := [line for _, line in islice(lines, CHUNK * batch_size)]:
        output.writelines(prediction + "\n" for prediction in predictor(chunk, batch_size))
        output.flush()
