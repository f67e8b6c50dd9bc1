"""Predict line by line, from a file or stdin to a file or stdout."""

import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from seq2seq.api import Hypothesis, Predictor, Vote, load_models, named_paths
from seq2seq.data.lines import MAX_LINE, decode_lines, open_file
from seq2seq.data.tokenizer import check_columns
from seq2seq.decoding import Alignment, build_search
from seq2seq.errors import UserError
from seq2seq.model import TrainedModel
from seq2seq.runs.files import check_different, check_free, output_file, output_or_stdout, write_lines
from seq2seq.settings import CommandSettings, Count, Workers, read_settings, resolve_config

CHUNK = 100
"""Number of batches of lines that are read, sorted by length and predicted at a time, to limit memory."""

JSON_LINES = ".jsonl"


class PredictSettings(CommandSettings):
    """The keys of ``configs/predict.yaml``."""

    checkpoint: Any
    input: int | str | None  # a file may be called 2024
    output: int | str | None
    batch_size: Count
    device: str
    workers: Workers
    backend: Literal["torch", "onnx"]
    search: dict[str, Any]
    overwrite: bool
    scores: bool
    attention: bool | str | None
    vote: bool


def predict(config: DictConfig) -> None:
    """Predict line by line, from ``input`` or stdin to ``output`` or stdout: ``search.n_best`` lines for each.

    Raises:
        UserError: If the checkpoint, a file or a line is not valid.
    """
    settings = read_settings(PredictSettings, resolve_config(config))
    given = {"output": settings.output, "attention": settings.attention}
    files = {key: path for key, path in given.items() if not isinstance(path, bool | None)}
    for checkpoint in named_paths(settings.checkpoint):
        check_different(checkpoint=checkpoint, input=settings.input, **files)
    for key, path in files.items():
        check_free(key, path, overwrite=settings.overwrite)
    predictor = make_predictor(settings, *load(settings, files))
    output = None if settings.output is None else Path(str(settings.output)).expanduser()
    console = Console(stderr=True)
    speed = "{task.fields[lines]:,} lines, {task.fields[rate]:,.0f} per second, left:"
    columns = ("{task.description}", BarColumn(), speed, TimeRemainingColumn())
    with (
        open_input(settings.input) as source,
        attention_writer(settings.attention, predictor) as write_attention,
        Progress(*columns, console=console, disable=output is None or not console.is_terminal) as bar,
        output_or_stdout(output) as file,
    ):
        size = os.fstat(source.fileno()).st_size if source.seekable() else 0
        task = bar.add_task(escape(str(output)), total=size or None, lines=0, rate=0)
        name = "<stdin>" if settings.input is None else str(settings.input)
        for chunk in Arriving(source).chunks(name, CHUNK * settings.batch_size):
            for number, line in chunk:
                if line.strip():
                    check_columns(line, predictor.tokenizers.columns, f"{name}:{number}")
            predictions = predictor.n_best([line for _, line in chunk], settings.batch_size)
            every = (hypothesis for hypotheses in predictions for hypothesis in hypotheses)
            write_lines(file, (one.text + f"\t{one.score:.4f}" * settings.scores + "\n" for one in every))
            for (number, line), hypotheses in zip(chunk, predictions, strict=True):
                write_attention(number, line, hypotheses[0])
            lines, seconds = chunk[-1][0], bar.tasks[task].elapsed or 1
            bar.update(task, completed=source.tell() if size else 0, lines=lines, rate=lines / seconds)


def load(settings: PredictSettings, written: dict[str, Any]) -> tuple[Sequence[TrainedModel], str]:
    """Load the checkpoints for the backend, and return them with the device that it computes on.

    Raises:
        UserError: If one is not valid or would be overwritten by what is ``written``, or the backend is not available.
    """
    if settings.backend == "torch":
        return load_models(settings.checkpoint), settings.device
    from seq2seq.export.backend import load_exports
    from seq2seq.export.files import FILES

    if settings.device not in ("auto", "cpu"):
        raise UserError(f"device={settings.device} does not fit backend=onnx, which computes on the CPU")
    for folder, name in product(named_paths(settings.checkpoint), FILES):
        check_different(checkpoint=f"{folder}/{name}", **written)
    return load_exports(settings.checkpoint), "cpu"


def make_predictor(settings: PredictSettings, models: Sequence[TrainedModel], device: str) -> Predictor | Vote:
    """Return a predictor of one model, an ensemble or a vote; raise `UserError` if a setting does not fit it."""
    from_file = settings.input is not None and Path(str(settings.input)).is_file()
    workers = settings.workers if from_file or settings.workers != "auto" else 0  # a pipe may hold a line, and wait

    def predictor(*members: TrainedModel) -> Predictor:
        first = members[0]
        search = build_search(settings.search, first.max_length, first.target_size)
        return Predictor(members, device, search, workers)

    if settings.vote and settings.search.get("n_best", 1) != 1:
        raise UserError(f"search.n_best={settings.search['n_best']} does not fit vote=true: one prediction is elected")
    if settings.vote and settings.attention not in (False, None):
        raise UserError(f"attention={settings.attention} does not fit vote=true: each model attends for itself")
    return Vote([predictor(model) for model in models]) if settings.vote else predictor(*models)


def open_input(given: object) -> BinaryIO:
    """Return a file, or stdin, open for reading bytes; if that is a terminal, say what is expected there."""
    if given is not None:
        return open_file(str(given), "input")
    if sys.stdin is None:
        raise UserError("input is missing: stdin is closed, so give input=FILE")
    if sys.stdin.isatty():
        Console(stderr=True).print("one text per line; Ctrl-D ends")
    return sys.stdin.buffer


class Arriving:
    """Reads the lines of a file, a pipe or a terminal from which nothing has been read yet, as they arrive."""

    def __init__(self, source: BinaryIO) -> None:
        self.handle = source.fileno()
        self.rest = bytearray()
        self.ended = False

    def has_line(self, *, wait: bool) -> bool:
        """Return whether there is a line, or the beginning of one that is too long; read what has arrived, or wait."""
        while not (self.ended or b"\n" in self.rest or len(self.rest) > MAX_LINE):
            # On Windows, only of a terminal can it be said that nothing has arrived.
            waits = os.isatty(self.handle) if os.name == "nt" else not select.select([self.handle], [], [], 0)[0]
            if waits and not wait:
                return False
            read = os.read(self.handle, 2**16)
            self.rest += read
            self.ended = not read
        return True

    def readline(self, _: int = -1) -> bytes:
        """Return a line, or the beginning of one that is too long; wait for it if need be."""
        self.has_line(wait=True)
        end = self.rest.find(b"\n") + 1 or len(self.rest)
        line = bytes(self.rest[:end])
        del self.rest[:end]
        return line

    def chunks(self, name: str, size: int) -> Iterator[list[tuple[int, str]]]:
        """Yield what has arrived, at most ``size`` lines at a time, before it waits for more; see `decode_lines`."""
        chunk = []
        for line in decode_lines(self, name):  # pyright: ignore[reportArgumentType] - reads lines, and no more is used
            chunk.append(line)
            with suppress(OSError):  # `readline` will meet it, too
                if len(chunk) < size and self.has_line(wait=False):
                    continue
            yield chunk
            chunk = []
        if chunk:
            yield chunk


@contextmanager
def attention_writer(wanted: object, predictor: Predictor | Vote) -> Iterator[Callable[[int, str, Hypothesis], object]]:
    """Provide a function that writes the attention of a line, given its number, its text and the best prediction.

    If ``wanted`` is False or None, nothing is written. A file that ends in ``.jsonl`` gets tokens and weights as JSON,
    line by line; a folder gets a heatmap for each line; True stands for a folder named ``attention``.

    Raises:
        UserError: If there is no attention, or it cannot be written there.
    """
    if wanted in (False, None) or isinstance(predictor, Vote):  # which is refused with attention
        yield lambda *_: None
        return
    if not any(model.has_attention for model in predictor.ensemble.models):
        raise UserError(f"attention={wanted}: the checkpoint has model.attention=none, so there are no weights to show")
    path = Path("attention" if wanted is True else str(wanted)).expanduser()
    if path.suffix == JSON_LINES:
        with output_file(path, "attention") as file:
            yield lambda _, text, best: file.write(alignment_as_json(predictor.align(text, best)))
        return
    if path.exists():
        raise UserError(f"attention={path} exists; give a new folder, or a file that ends in {JSON_LINES}")
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"attention={path} cannot be created: {error.strerror}") from error
    yield lambda number, text, best: draw_alignment(path / f"{number}.png", predictor.align(text, best))


def alignment_as_json(alignment: Alignment | None) -> str:
    """Return a line: source tokens, predicted tokens with the end, and the weights of each; none for an empty text.

    With features, the line also names them; their weights follow those of the source tokens.
    """
    source, prediction, weights, features = alignment or Alignment([], [], torch.empty(0))
    rounded = [[round(weight, 6) for weight in row] for row in weights.tolist()]
    content = {"source": source, "prediction": prediction, "weights": rounded} | (
        {"features": features} if features else {}
    )
    return json.dumps(content, ensure_ascii=False) + "\n"


def draw_alignment(path: Path, alignment: Alignment | None) -> None:
    """Draw a heatmap, but none for an empty text."""
    from seq2seq.reporting.plots import HEATMAP_LIMIT, attention_heatmap, save  # matplotlib takes a second

    longest = max(alignment.weights.shape) if alignment else 0
    if longest > HEATMAP_LIMIT:
        problem = f"line {path.stem} has {longest} tokens, and a heatmap holds {HEATMAP_LIMIT}"
        raise UserError(f"attention: {problem}; give a file that ends in {JSON_LINES}")
    if alignment:
        save(attention_heatmap(alignment), path, "attention")
