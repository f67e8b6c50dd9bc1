"""Predict line by line, from a file or stdin to a file or stdout."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from seq2seq.api import Hypothesis, Predictor, as_list, load_models
from seq2seq.data.lines import decode_lines, open_file
from seq2seq.data.tokenizer import COLUMN
from seq2seq.decoding import Alignment, build_search
from seq2seq.errors import UserError, visible
from seq2seq.model import TrainedModel
from seq2seq.runs.files import check_different, check_free, output_file
from seq2seq.schema import Count, check
from seq2seq.settings import resolve_config

CHUNK = 100
"""Number of batches of lines that are read, sorted by length and predicted at a time, to limit memory."""

JSON_LINES = ".jsonl"


class PredictSettings:
    """The keys of ``configs/predict.yaml``."""

    checkpoint: Any
    input: int | str | None  # a file may be called 2024
    output: int | str | None
    batch_size: Count
    device: str
    backend: Literal["torch", "onnx"]
    search: Any
    overwrite: bool
    scores: bool
    attention: bool | str | None


def predict(config: DictConfig) -> None:
    """Predict line by line, from ``input`` or stdin to ``output`` or stdout.

    Raises:
        UserError: If the checkpoint, a file or a line is not valid.
    """
    settings = resolve_config(config)
    check("", settings, PredictSettings)
    batch_size, scores = settings["batch_size"], settings["scores"]
    given, output = settings["input"], settings["output"]
    attention = settings["attention"] if isinstance(settings["attention"], str) else None
    checkpoints = as_list(settings["checkpoint"])
    if settings["backend"] == "onnx":
        from seq2seq.export.files import FILES  # only now, so that others do not wait for it

        checkpoints = [*checkpoints, *(f"{folder}/{name}" for folder in checkpoints for name in FILES)]
    for checkpoint in checkpoints:
        check_different(checkpoint=checkpoint, input=given, output=output, attention=attention)
    for key, path in (("output", output), ("attention", attention)):
        check_free(key, path, overwrite=settings["overwrite"])
    modules, device = load(settings)
    search = build_search(settings["search"], modules[0].max_length, len(modules[0].target_tokenizer.vocabulary))
    predictor = Predictor(modules, device, search)
    with open_input(given) as source, attention_writer(settings["attention"], predictor) as write_attention:
        name = "<stdin>" if given is None else str(given)
        lines = check_columns(decode_lines(source, name), name, predictor.source_tokenizer.columns)
        chunk = CHUNK * batch_size
        if given is None and sys.stdin.isatty():  # in a terminal, answer each line at once
            chunk = 1
            Console(stderr=True).print("one text per line; Ctrl-D ends")
        if output is None:
            predict_lines(predictor, lines, utf8_stdout(), batch_size, chunk, scores, write_attention)
            return
        with progress(source, str(output)) as track, output_file(Path(str(output)).expanduser(), "output") as file:
            predict_lines(predictor, track(lines), file, batch_size, chunk, scores, write_attention)


def load(settings: dict[str, Any]) -> tuple[Sequence[TrainedModel], str]:
    """Load the checkpoints for the backend, and return them with the device that it computes on.

    Raises:
        UserError: If one is not valid, or the backend is not available.
    """
    if settings["backend"] == "torch":
        return load_models(settings["checkpoint"]), settings["device"]
    if settings["device"] not in ("auto", "cpu"):
        raise UserError(f"device={settings['device']} does not fit backend=onnx, which computes on the CPU")
    from seq2seq.export.backend import load_exports

    return load_exports(settings["checkpoint"]), "cpu"


def open_input(given: object) -> BinaryIO:
    """Return a file, or stdin, open for reading bytes."""
    if given is not None:
        return open_file(str(given), "input")
    if sys.stdin is None:
        raise UserError("input is missing: stdin is closed, so give input=FILE")
    return sys.stdin.buffer


def utf8_stdout() -> IO[str]:
    """Return stdout, set to UTF-8 regardless of the terminal's settings."""
    if sys.stdout is None:
        raise UserError("output is missing: stdout is closed, so give output=FILE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    return sys.stdout


def write_lines(output: IO[str], lines: Iterable[str]) -> None:
    """Write lines and flush, as a reader may be waiting.

    Raises:
        UserError: If they cannot be written.
    """
    try:
        output.writelines(map(visible, lines) if output.isatty() else lines)
        output.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        raise
    except OSError as error:
        raise UserError(f"output cannot be written: {error.strerror or error}") from error


Lines = Iterator[tuple[int, str]]


def check_columns(lines: Lines, name: str, columns: int) -> Lines:
    """Yield the lines if each has as many columns as the model reads; for a model of one column, tabs are text.

    Raises:
        UserError: If a line has another number of columns.
    """
    for number, line in lines:
        found = line.count(COLUMN) + 1
        if columns > 1 and line.strip() and found != columns:
            raise UserError(
                f"{name}:{number}: the line has {found} columns; the model reads {columns}, separated by tabs"
            )
        yield number, line


AttentionWriter = Callable[[int, str, Hypothesis], None]
"""Takes the number of a line, counted from 1, its text, and the best prediction for it."""


@contextmanager
def progress(source: BinaryIO, name: str) -> Iterator[Callable[[Lines], Lines]]:
    """Show on stderr, if it is a terminal, how much of an open file has been read."""
    size = os.fstat(source.fileno()).st_size if source.seekable() else 0
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.fields[lines]} lines"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=size or None, lines=0)

        def track(lines: Lines) -> Lines:
            for number, line in lines:
                if number % CHUNK == 0:
                    bar.update(task, completed=source.tell() if size else 0, lines=number)
                yield number, line

        yield track


@contextmanager
def attention_writer(wanted: object, predictor: Predictor) -> Iterator[AttentionWriter]:
    """Provide a function that writes the attention of each line.

    Args:
        wanted: False or None writes nothing; a file that ends in ``.jsonl`` gets tokens and weights as JSON, line by
            line; a folder gets a heatmap for each line; True stands for a folder named ``attention``.
        predictor: The predictor whose attention is written.

    Raises:
        UserError: If there is no attention, or it cannot be written there.
    """
    if wanted in (False, None):
        yield lambda *_: None
        return
    if not any(model.has_attention for model in predictor.ensemble.models):
        raise UserError(f"attention={wanted}: the checkpoint has model.attention=none, so there are no weights to show")
    path = Path("attention" if wanted is True else str(wanted)).expanduser()
    if path.suffix == JSON_LINES:
        with output_file(path, "attention") as file:
            yield lambda _, text, prediction: write_alignment(file, predictor, text, prediction)
        return
    if path.exists():
        raise UserError(f"attention={path} exists; give a new folder, or a file that ends in {JSON_LINES}")
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"attention={path} cannot be created: {error.strerror}") from error
    yield lambda number, text, prediction: draw_alignment(path / f"{number}.png", predictor, text, prediction)


def align(predictor: Predictor, text: str, prediction: Hypothesis) -> Alignment | None:
    """Return the alignment of a line; None for an empty line."""
    return predictor.align(text, prediction) if predictor.encode(text) else None


def write_alignment(file: IO[str], predictor: Predictor, text: str, prediction: Hypothesis) -> None:
    """Write a line of JSON: source tokens, predicted tokens with the end, and the weights of each predicted token."""
    alignment = align(predictor, text, prediction)
    content = {"source": [], "prediction": [], "weights": []}
    if alignment is not None:
        weights = [[round(weight, 6) for weight in row] for row in alignment.weights.tolist()]
        content = {"source": alignment.source, "prediction": alignment.target, "weights": weights}
    file.write(json.dumps(content, ensure_ascii=False) + "\n")


def draw_alignment(path: Path, predictor: Predictor, text: str, prediction: Hypothesis) -> None:
    """Draw a heatmap."""
    from seq2seq.reporting.plots import HEATMAP_LIMIT, attention_heatmap, save  # only now: Matplotlib takes a second

    alignment = align(predictor, text, prediction)
    if alignment is None:
        return
    longest = max(alignment.weights.shape)
    if longest > HEATMAP_LIMIT:
        raise UserError(
            f"attention: line {path.stem} has {longest} tokens, and a heatmap holds {HEATMAP_LIMIT}; "
            f"give a file that ends in {JSON_LINES}"
        )
    save(attention_heatmap(alignment), path, "attention")


def predict_lines(
    predictor: Predictor,
    lines: Lines,
    output: IO[str],
    batch_size: int,
    chunk: int,
    scores: bool,
    write_attention: AttentionWriter,
) -> None:
    """Write the N best predictions for each line, one per line, in order."""
    while read := list(islice(lines, chunk)):
        predictions = predictor.n_best([line for _, line in read], batch_size)
        best = (hypothesis for hypotheses in predictions for hypothesis in hypotheses)
        write_lines(output, (f"{text}\t{log_prob:.4f}\n" if scores else f"{text}\n" for text, log_prob, _ in best))
        for (number, line), hypotheses in zip(read, predictions, strict=True):
            write_attention(number, line, hypotheses[0])
