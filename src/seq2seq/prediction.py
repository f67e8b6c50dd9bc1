"""Predictions for new text: three lines of Python, or `scripts/predict.py`."""

import io
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

import torch
from omegaconf import DictConfig

from seq2seq.building import plain
from seq2seq.checkpoint import load_module
from seq2seq.data.corpus import Sequences
from seq2seq.data.lines import decode_lines, open_file
from seq2seq.data.vocabulary import BOS
from seq2seq.errors import UserError, check_count, check_keys
from seq2seq.files import replacing
from seq2seq.module import Seq2SeqModule
from seq2seq.search import Alignment, greedy, to_lists

CHUNK = 100
"""How many batches of lines are read before they are sorted by length and predicted: memory stays bounded."""


MOST_TOKENS = 64 * 256
"""Most source tokens of a batch, padding included: one long line must not pad a whole batch to its length."""


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
        for rows in cut_batches(filled, [len(encoded[row]) for row in filled], batch_size):
            for row, ids in zip(rows, self._decode([encoded[row] for row in rows]), strict=True):
                predictions[row] = self.module.target.decode(ids)
        return predictions

    @torch.inference_mode()
    def _decode(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        sequences = Sequences(sources)
        source = sequences.padded(torch.arange(len(sequences))).to(self.module.device)
        encoded = self.module.model.encode(source, sequences.lengths)
        return to_lists(greedy([self.module.model], [encoded], self.max_length))

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


def find_device(name: object) -> torch.device:
    """Return the device of that name; ``auto`` takes an accelerator if there is one."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(str(name))
        torch.zeros(1, device=device).item()  # a device without memory of its own fails here
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={name} is not available here; use auto or cpu") from error
    return device


def cut_batches(rows: list[int], lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Yield rows in batches of at most ``batch_size`` rows and `MOST_TOKENS` padded tokens, but at least one row.

    Args:
        rows: In order of length.
        lengths: Of each.
        batch_size: Most rows of a batch.
    """
    batch: list[int] = []
    for row, length in zip(rows, lengths, strict=True):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * length > MOST_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def predict(config: DictConfig) -> None:
    """Predict line by line, from ``input`` or stdin to ``output`` or stdout.

    Raises:
        UserError: If the checkpoint, a file or a line is not what it must be.
    """
    settings = plain(config)
    check_keys("", settings, ["checkpoint", "input", "output", "batch_size", "device", "search"])
    check_keys("search", settings["search"], ["max_length"])
    batch_size = check_count("batch_size", settings["batch_size"])
    module = load_module(str(settings["checkpoint"]))
    predictor = Predictor(module, settings["device"], settings["search"]["max_length"])
    given, wanted = settings["input"], settings["output"]
    if None not in (given, wanted) and Path(str(given)).resolve() == Path(str(wanted)).resolve():
        raise UserError(f"output={wanted} is the input, which would be lost; give another file")
    with opened_input(given) as source:
        lines = decode_lines(source, "<stdin>" if given is None else str(given))
        if wanted is None:
            predict_lines(predictor, lines, utf8_stdout(), batch_size)
            return
        with (
            replacing(Path(str(wanted)).expanduser(), "output") as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            predict_lines(predictor, lines, file, batch_size)


def opened_input(given: object) -> BinaryIO:
    """Return a file, or stdin, open for reading bytes."""
    if given is not None:
        return open_file(str(given), "input")
    if sys.stdin is None:
        raise UserError("input is missing: stdin is closed, so give input=FILE")
    return sys.stdin.buffer


def utf8_stdout() -> IO[str]:
    """Return stdout, writing UTF-8 whatever the terminal's settings are."""
    if sys.stdout is None:
        raise UserError("output is missing: stdout is closed, so give output=FILE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return sys.stdout


def predict_lines(predictor: Predictor, lines: Iterator[tuple[int, str]], output: IO[str], batch_size: int) -> None:
    """Write one line for each line, in order."""
    while chunk := [line for _, line in islice(lines, CHUNK * batch_size)]:
        predictions = predictor(chunk, batch_size)
        try:
            output.writelines(prediction + "\n" for prediction in predictions)
            output.flush()
        except BrokenPipeError:  # the reader has left, as `head` does
            raise
        except OSError as error:
            raise UserError(f"output cannot be written: {error.strerror or error}") from error
