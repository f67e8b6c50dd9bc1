"""Show what a trained model predicts, attends to and hands over on a web page."""

import base64
import io
import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from pydantic import Field
from rich.console import Console

from seq2seq.api import Predictor
from seq2seq.checkpoint import load_model
from seq2seq.data import UNK
from seq2seq.data.sources import build_source
from seq2seq.data.tokenizer import COLUMN, Tokenizer
from seq2seq.decoding import build_search
from seq2seq.errors import UserError, import_extra
from seq2seq.handoff.example import example_of, first_symbols, layers_of, verdict
from seq2seq.handoff.mistakes import RIGHT
from seq2seq.handoff.picture import COMPACT, MAX_STEPS, handoff_picture
from seq2seq.handoff.verification import DIRECTIONS, Verification, verify
from seq2seq.model import TrainedModel
from seq2seq.nn.state import h_n_rows
from seq2seq.settings import CommandSettings, read_settings, resolve_config

Answer = Callable[[str], dict[str, Any]]

PICTURE_DPI = 200  # sharp on screens with two or three pixels for each of the page's


class DemoSettings(CommandSettings):
    """The keys of ``configs/demo.yaml``."""

    checkpoint: str
    search: Any
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    max_characters: Annotated[int, Field(ge=1, le=10_000)]
    seconds: Annotated[float, Field(ge=0.1, le=3600)]
    max_waiting: Annotated[int, Field(ge=1, le=10_000)]


def demo(config: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: If the checkpoint or a setting is not valid, the port is in use, or the extra ``demo`` is missing.
    """
    settings = read_settings(DemoSettings, resolve_config(config))
    import_extra("starlette", "demo")
    uvicorn = import_extra("uvicorn", "demo")
    from seq2seq.demo.app import make_app
    from seq2seq.demo.server import serving

    host, port = settings.host, settings.port
    module = load_model(settings.checkpoint)
    search = build_search(settings.search, module.max_length, module.target_size)
    answer = make_answer(module, Predictor([module], search=search))
    limits = settings.model_dump(include={"max_characters", "seconds", "max_waiting"})
    expects, text = introduction(module)
    facts = {"about": describe(module), "expects": expects, "columns": module.tokenizers.columns}
    example = answered(answer, text, settings.max_characters)
    app = make_app(answer, facts=facts | {"example": example}, hosts=names_of(host), **limits)
    connections = 2 * settings.max_waiting + 32  # also those that have not sent their text yet
    served = serving(app, max_connections=connections, seconds=settings.seconds)
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        message = f"http://{shown}:{port} shows {settings.checkpoint}; Ctrl-C ends"
        Console(stderr=True).print(message, markup=False, soft_wrap=True)
        uvicorn.Server(served).run(sockets=[listener])


def names_of(host: str) -> list[str]:
    """Return the names that a browser may use for the server: of this machine if only it can connect, else any."""
    try:
        local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        local = False
    return ["localhost", host, f"[{host}]"] if local else ["*"]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: If it cannot.
    """
    if not host:
        raise UserError("host= is empty; give 127.0.0.1, or 0.0.0.0 for anyone on the network")
    try:
        host.encode("idna")  # otherwise the socket would be left open
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0  # negative for an unknown name
        reason = os.strerror(number) if number > 0 else str(error)
        raise UserError(f"cannot listen on host={host} port={port}: {reason}; choose another port or host") from error


def describe(module: TrainedModel) -> str:
    """Return a line about a model."""
    model, mistake = module.settings["model"], module.settings["handoff"]
    encoder, decoder = layers_of(model["encoder"]), layers_of(model["decoder"])
    line = f"{encoder} encoder, bridge {model['bridge']}, {decoder} decoder ({model['decoder']['kind']})"
    return line if mistake == RIGHT else f"{line}, {mistake} (wrong on purpose)"


def introduction(module: TrainedModel) -> tuple[str, str]:
    """Return what a model reads and writes, in words, and a text to begin with."""
    with suppress(UserError):  # a source of another version, or one that is not registered here
        source = build_source(module.settings["data"])
        if source.about:
            texts = [pair.source for pair in islice(source.pairs("test"), 50)]
            return source.about, max(filter(str.isascii, texts), key=len, default=texts[0])  # most people can read it
    source, target, features = module.tokenizers
    reads = symbols_of(source) + (symbols_of(features) if features else [])
    if len(reads) > 1:
        reads = [f"column {number}: {symbols}" for number, symbols in enumerate(reads, start=1)]
    return f"Reads {'; '.join(reads)}; writes {symbols_of(target)[0]}.", first_symbols(module.tokenizers, 5)


def symbols_of(tokenizer: Tokenizer) -> list[str]:
    """Return what the tokens of each column are, such as ``characters``, and the most frequent ones."""
    found = []
    for column, part in enumerate(getattr(tokenizer, "parts", [tokenizer])):
        own = (one.strip() for one in tokenizer.vocabulary.symbols if one.count(COLUMN) == column)
        separator = getattr(part, "separator", None)
        kind = f"tokens separated by {separator.strip() or 'spaces'}" if separator else part.name
        found.append(f"{kind}, such as {' '.join(islice(filter(None, own), 8))}")
    return found


def answered(answer: Answer, text: str, max_characters: int) -> dict[str, Any] | None:
    """Return a text and its answer, to begin with; None if it cannot be answered."""
    with suppress(UserError):
        if len(text) <= max_characters:
            return {"text": text, "answer": answer(text)}
    return None


def make_answer(module: TrainedModel, predictor: Predictor) -> Answer:
    """Return the function that answers a text with what the page shows, given a model and its predictor."""

    def answer(text: str) -> dict[str, Any]:
        encoded = predictor.encode(text)
        if not encoded[0]:
            raise UserError("the text is empty")
        tokens = [token for part in module.tokenizers.shown(text) for token in part]
        unknown = [id_ == UNK for part in encoded for id_ in part]
        predictions = predictor.n_best([text])[0]
        alignment = predictor.align(text, predictions[0])
        found = [one for one in predictions if one.log_prob > -math.inf]  # there may be fewer than N
        return {
            "predictions": [{"text": one.text, "probability": math.exp(one.log_prob)} for one in found],
            "tokens": [{"text": one, "unknown": new} for one, new in zip(tokens, unknown, strict=True)],
            "attention": alignment and alignment._replace(weights=alignment.weights.tolist())._asdict(),
            "handoff": handoff(module, text),
        }

    return answer


def handoff(module: TrainedModel, text: str) -> dict[str, Any]:
    """Return how the state of a text is handed over: the rows of ``h_n``, a verdict, and a picture if it is legible."""
    length = len(module.tokenizers.encode(text)[0])
    if length > MAX_STEPS:
        return {"notes": [f"The text has {length} tokens; the handoff is drawn for up to {MAX_STEPS}."]}
    example = example_of(module, [text])
    measured = verify(example.model, example.source, example.lengths, example.features)
    picture = io.BytesIO()
    figure = handoff_picture(measured, example.settings, example.handoff, example.sequences[0], COMPACT)
    figure.savefig(picture, format="png", dpi=PICTURE_DPI)
    return {
        "notes": example.notes,
        "rows": rows_of(measured),
        "verdict": verdict(measured),
        "verified": not measured.faults,
        "picture": "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode(),
    }


def rows_of(measured: Verification) -> list[dict[str, Any]]:
    """Return layer and direction of each row of ``h_n``, and the decoder layers that start from it."""
    reached = torch.stack([sizes for (_, of), sizes in measured.reach.items() if of == "h"]).any(0)  # (L', L, D)
    layers, directions = measured.places["h"].steps.shape[:2]
    rows = []
    for layer, in_layer in enumerate(h_n_rows(layers, directions).tolist()):
        for direction, row in enumerate(in_layer):
            starts = reached[:, layer, direction].nonzero().flatten().tolist()
            rows.append({"row": row, "layer": layer, "direction": DIRECTIONS[direction], "starts": starts})
    return rows
