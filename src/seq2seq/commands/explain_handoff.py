"""Show and verify the handoff of a model."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor

from seq2seq.checkpoint import load_model
from seq2seq.data import SPECIALS, UNK, Tokenizers
from seq2seq.errors import UserError
from seq2seq.handoff.example import Example, example_of, first_symbols, layers_of, verdict
from seq2seq.handoff.mistakes import RIGHT
from seq2seq.handoff.picture import COMPACT, WIDE, handoff_picture
from seq2seq.handoff.verification import DIRECTIONS, EXACT, Verification, verify
from seq2seq.model import model_from_config
from seq2seq.nn.state import h_n_rows
from seq2seq.reporting.plots import save
from seq2seq.runs.files import user_path
from seq2seq.settings import CommandSettings, read_settings, resolve_config

SIZE = 9
"""Of the vocabularies of an untrained model."""


class ExplainSettings(CommandSettings):
    """The keys of ``configs/explain_handoff.yaml``."""

    model: Any
    checkpoint: str | None
    text: Any
    handoff: str
    output: str
    compact: bool


def explain(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Verify a model's handoff on a padded batch, print and draw it, and return the picture's path.

    Args:
        config: Composed from ``configs/explain_handoff.yaml``.
        overrides: Of the command line.

    Raises:
        UserError: If a setting is not allowed, or the handoff is wrong and not on purpose.
    """
    settings = read_settings(ExplainSettings, resolve_config(config))
    output = user_path("output", settings.output)
    example = untrained(settings) if settings.checkpoint is None else trained(settings, settings.checkpoint, overrides)
    measured = verify(example.model, example.source, example.lengths, example.features)
    show(Console(), example, measured)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror}") from error
    layout = COMPACT if settings.compact else WIDE
    save(handoff_picture(measured, example.settings, example.handoff, example.sequences[0], layout), output, "output")
    if measured.faults and example.handoff == RIGHT:
        raise UserError(f"the handoff is wrong in {len(measured.faults)} places; the first: {measured.faults[0]}")
    return output


def untrained(settings: ExplainSettings) -> Example:
    """Build a model of the configured shape, and a small padded batch of made-up ids."""
    if settings.text is not None:
        raise UserError(f"text={settings.text} needs a trained model: give checkpoint=FILE as well")
    torch.manual_seed(0)
    reads_features = bool(settings.model["encoder"].get("reads_features"))  # then there are some
    sizes: dict[str, Any] = {"source_size": SIZE, "target_size": SIZE, "features_size": SIZE * reads_features}
    model = model_from_config(settings.model, **sizes, handoff=settings.handoff)
    lengths = torch.tensor([3, 5, 1])
    source = torch.randint(0, SIZE, (3, 5))
    features = torch.randint(len(SPECIALS), SIZE, (3, 2)) if reads_features else None
    sequences = [[f"t={step}" for step in range(length)] for length in lengths.tolist()]
    return Example(model, settings.model, settings.handoff, sequences, source, lengths, features, [])


def trained(settings: ExplainSettings, checkpoint: str, overrides: Sequence[str]) -> Example:
    """Load a checkpoint and encode the given texts."""
    for override in overrides:
        if re.match(r"[+~]*(handoff|model)\b", override):
            raise UserError(f"{override} cannot be given with checkpoint, which defines the model")
    module = load_model(checkpoint)
    return example_of(module, given_texts(settings.text, module.tokenizers))


def given_texts(given: object, tokenizers: Tokenizers) -> list[str]:
    """Return the given texts; if there are none, two of the first symbols of the vocabulary, without features."""
    if given is None:
        return [first_symbols(tokenizers, size) for size in (5, 3)]
    texts: list[Any] = given if isinstance(given, list) else [given]
    if not texts:
        raise UserError("text=[] must contain at least one text")
    for text in texts:
        if not isinstance(text, str):  # Hydra has parsed it as a number or a flag
            raise UserError(f"text={text} is not a string; quote it twice, as in text=\"'{text}'\"")
    return texts


def show(console: Console, example: Example, measured: Verification) -> None:
    """Print the batch, where its final states occur in ``output``, which of them reach the decoder, and the verdict."""
    encoder, decoder = layers_of(example.settings["encoder"]), layers_of(example.settings["decoder"])
    title = f"Encoder: {encoder}; bridge: {example.settings['bridge']}; decoder: {decoder}"
    if example.handoff != RIGHT:
        title += f"; handoff={example.handoff}, wrong on purpose"
    console.print(Text(title, style="bold"), soft_wrap=True)
    columns = [Column(name, overflow="fold") for name in ("sequence", "length", "tokens")]
    table = Table(*columns, title=f"The batch, padded to S = {example.source.size(1)}")
    for number, sequence in enumerate(example.sequences):
        tokens = Text(" ").join(Text(token, style="red" if token == SPECIALS[UNK] else "") for token in sequence)
        table.add_row(str(number), str(len(sequence)), tokens)
    console.print(table)
    for note in example.notes:
        console.print(Text(note), soft_wrap=True)
    for part in measured.places:
        console.print(places_table(part, measured))
    for (to, of), sizes in measured.reach.items():
        title = f"What is handed over: {of}_n to the decoder's initial {to}"
        console.print(reach_table(title, of, sizes) if sizes.any() else f"{title}: none.")
    console.print(Text("\n  ".join(verdict(measured)), style="red" if measured.faults else ""), soft_wrap=True)


def places_table(part: str, measured: Verification) -> Table:
    """Return the layer and direction of each row of ``h_n`` or ``c_n``, and where it is in ``output``, if anywhere."""
    steps, gaps = measured.places[part]
    layers, directions, batch = steps.shape
    shape = (layers * directions, batch, measured.hidden_size)
    columns = (f"{part}_n", "layer", "direction", "state", "is in output at", "difference")
    table = Table(*columns, title=f"What PyTorch returns, before the handoff: {part}_n, (L * D, B, H) = {shape}")
    for layer, rows in enumerate(h_n_rows(layers, directions).tolist()):
        for direction, row in enumerate(rows):
            here, found = gaps[layer, direction], gaps[layer, direction] <= EXACT
            place, difference = "nowhere", f"at least {here.min():.1g}"
            if found.all():
                place, difference = where(steps[layer, direction], measured, direction), f"{here.max():.1g}"
            elif found.any():  # an encoder that is wrong for some sequences
                missing = ", ".join(map(str, (~found).nonzero().flatten().tolist()))
                place, difference = f"sequence {missing}: nowhere", f"up to {here.max():.1g}"
            state = f"{part}[{layer}, {direction}]"
            cells = (f"{part}_n[{row}]", str(layer), DIRECTIONS[direction], state, place, difference)
            table.add_row(*map(Text, cells))  # as text, or the brackets would be markup
    return table


def where(steps: Tensor, measured: Verification, direction: int) -> str:
    """Return at which step and in which slice of ``output`` the final states of the sequences are."""
    units = f"{measured.hidden_size}:" if direction else f":{measured.hidden_size}"
    listed = ", ".join(map(str, steps.tolist()))
    if not steps.any():
        return f"output[b, 0, {units}]"
    if torch.equal(steps, measured.lengths - 1):
        return f"output[b, length - 1, {units}], steps {listed}"
    return f"output[b, t, {units}], t = {listed}"


def reach_table(title: str, part: str, sizes: Tensor) -> Table:
    """Return the mean absolute gradient of each decoder layer with respect to each row of ``h_n``; a dot for none."""
    table = Table("", title=f"{title}: mean absolute gradient")
    for layer, rows in enumerate(h_n_rows(*sizes.shape[1:]).tolist()):
        for direction, row in enumerate(rows):
            table.add_column(f"{part}_n[{row}]\nlayer {layer}\n{DIRECTIONS[direction]}", justify="right")
    for layer in reversed(range(len(sizes))):
        cells = (f"{size:.1e}" if size else "·" for size in sizes[layer].flatten().tolist())
        table.add_row(f"decoder\nlayer {layer}", *cells)
    return table
