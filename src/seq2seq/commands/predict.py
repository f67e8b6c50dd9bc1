"""Predict line by line, from a file or stdin to a file or stdout."""

import json
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from seq2seq.api import Hypothesis, Predictor, as_list, load_models
from seq2seq.data.lines import MAX_LINE, decode_lines, open_file
from seq2seq.data.tokenizer import COLUMN
from seq2seq.decoding import Alignment, build_search
from seq2seq.errors import UserError
from seq2seq.model import TrainedModel
from seq2seq.runs.files import check_different, check_free, output_file, utf8_stdout, write_lines
from seq2seq.settings import Count, Settings, read_settings, resolve_config

CHUNK = 100
"""Number of batches of lines that are read, sorted by length and predicted at a time, to limit memory."""

JSON_LINES = ".jsonl"


class PredictSettings(Settings):
    """The keys of ``configs/predict.yaml``."""

    checkpoint: Any
    input: int | str | None  # a file may be called 2024
    output: int | str | None
    batch_size: Count
    device: str
    backend: Literal["torch", "onnx"]
    search: dict[str, Any]
    overwrite: bool
    scores: bool
    attention: bool | str | None


def predict(config: DictConfig) -> None:
    """Predict line by line, from ``input`` or stdin to ``output`` or stdout.

    Raises:
        UserError: If the checkpoint, a file or a line is not valid.
    """
    settings = read_settings(PredictSettings, resolve_config(config))
    files = {"output": settings.output, "attention": settings.attention if settings.attention is not True else None}
    files = {key: path for key, path in files.items() if path not in (None, False)}
    for checkpoint in as_list(settings.checkpoint):
        check_different(checkpoint=checkpoint, input=settings.input, **files)
    for key, path in files.items():
        check_free(key, path, overwrite=settings.overwrite)
    modules, device = load(settings, files)
    search = build_search(settings.search, modules[0].max_length, modules[0].target_size)
    predictor = Predictor(modules, device, search)
    with open_input(settings.input) as source, attention_writer(settings.attention, predictor) as write_attention:
        name = "<stdin>" if settings.input is None else str(settings.input)
        if source is getattr(sys.stdin, "buffer", None) and source.isatty():
            Console(stderr=True).print("one text per line; Ctrl-D ends")
        arriving = Arriving(source)
        decoded = decode_lines(arriving, name)  # pyright: ignore[reportArgumentType] - reads lines, and no more is used
        lines = check_columns(decoded, name, predictor.source_tokenizer.columns)

        def write(lines: Lines, file: IO[str]) -> None:
            chunks = arriving.chunks(lines, CHUNK * settings.batch_size)
            predict_lines(predictor, chunks, file, settings.batch_size, settings.scores, write_attention)

        if settings.output is None:
            write(lines, utf8_stdout())
            return
        output = Path(str(settings.output)).expanduser()
        with progress(source, str(output)) as track, output_file(output, "output") as file:
            write(track(lines), file)


def load(settings: PredictSettings, written: dict[str, Any]) -> tuple[Sequence[TrainedModel], str]:
    """Load the checkpoints for the backend, and return them with the device that it computes on.

    Args:
        settings: Of the command.
        written: The files that it writes.

    Raises:
        UserError: If one is not valid or would be overwritten, or the backend is not available.
    """
    if settings.backend == "torch":
        return load_models(settings.checkpoint), settings.device
    from seq2seq.export.backend import load_exports
    from seq2seq.export.files import FILES

    if settings.device not in ("auto", "cpu"):
        raise UserError(f"device={settings.device} does not fit backend=onnx, which computes on the CPU")
    for folder in as_list(settings.checkpoint):
        for name in FILES:
            check_different(checkpoint=f"{folder}/{name}", **written)
    return load_exports(settings.checkpoint), "cpu"


def open_input(given: object) -> BinaryIO:
    """Return a file, or stdin, open for reading bytes."""
    if given is not None:
        return open_file(str(given), "input")
    if sys.stdin is None:
        raise UserError("input is missing: stdin is closed, so give input=FILE")
    return sys.stdin.buffer


Lines = Iterator[tuple[int, str]]


class Arriving:
    """Reads the lines of a file, a pipe or a terminal, and knows which of them have arrived.

    Args:
        source: Open for reading; nothing has been read yet.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.handle = source.fileno()
        self.whole: deque[bytes] = deque()
        self.rest = b""
        self.ended = False

    def readline(self, _: int = -1) -> bytes:
        """Return a line, or the beginning of one that is too long; wait for it if need be."""
        while self.lacks_line():
            self.read()
        if self.whole:
            return self.whole.popleft()
        rest, self.rest = self.rest, b""
        return rest

    def lacks_line(self) -> bool:
        """Return whether more must be read before there is a line."""
        return not (self.whole or self.ended or len(self.rest) > MAX_LINE)

    def read(self) -> None:
        """Read what has arrived."""
        read = os.read(self.handle, 2**16)
        *whole, self.rest = (self.rest + read).split(b"\n")
        self.whole.extend(line + b"\n" for line in whole)
        self.ended = not read

    def must_wait(self) -> bool:
        """Return whether the next line has not arrived; on Windows, only of a terminal can this be said."""
        if os.name == "nt":
            return not self.whole and os.isatty(self.handle)
        with suppress(OSError):  # `readline` will meet it, too
            while self.lacks_line() and select.select([self.handle], [], [], 0)[0]:
                self.read()
        return self.lacks_line()

    def chunks(self, lines: Lines, size: int) -> Iterator[list[tuple[int, str]]]:
        """Yield what has arrived, at most ``size`` lines at a time, before it waits for more.

        Args:
            lines: The decoded lines of this object.
            size: Maximum number of lines in a chunk.
        """
        chunk = []
        for line in lines:
            chunk.append(line)
            if len(chunk) == size or self.must_wait():
                yield chunk
                chunk = []
        if chunk:
            yield chunk


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
    from seq2seq.reporting.plots import HEATMAP_LIMIT, attention_heatmap, save  # matplotlib takes a second

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
    chunks: Iterable[list[tuple[int, str]]],
    output: IO[str],
    batch_size: int,
    scores: bool,
    write_attention: AttentionWriter,
) -> None:
    """Write the N best predictions for each line, one per line, in order."""
    for chunk in chunks:
        predictions = predictor.n_best([line for _, line in chunk], batch_size)
        best = (hypothesis for hypotheses in predictions for hypothesis in hypotheses)
        write_lines(output, (f"{text}\t{log_prob:.4f}\n" if scores else f"{text}\n" for text, log_prob, _ in best))
        for (number, line), hypotheses in zip(chunk, predictions, strict=True):
            write_attention(number, line, hypotheses[0])
