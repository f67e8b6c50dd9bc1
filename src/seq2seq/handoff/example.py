"""A trained model and a small batch on which its handoff is shown, and the verdict in words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seq2seq.data import SPECIALS, UNK, FlatSequences, Tokenizers
from seq2seq.data.tokenizer import COLUMN
from seq2seq.errors import UserError
from seq2seq.handoff.picture import MAX_STEPS
from seq2seq.handoff.verification import Verification
from seq2seq.model import TrainedModel
from seq2seq.nn import Seq2Seq

SHOWN_FAULTS = 12
"""Maximum number of faults that are listed; one mistake shows in many sequences."""


class Example(NamedTuple):
    """A model and a batch on which its handoff is shown.

    Attributes:
        settings: The section ``model`` of the model's config.
        handoff: ``right``, or the mistake that it makes on purpose.
        sequences: The tokens of each sequence of the batch; the first is drawn.
        source: Their ids, ``(B, S)``.
        lengths: Their lengths, ``(B,)``.
        features: Ids of their features, ``(B, F)``; None without features.
        notes: Remarks on the sequences, printed below them.
    """

    model: Seq2Seq
    settings: dict[str, Any]
    handoff: str
    sequences: list[list[str]]
    source: Tensor
    lengths: Tensor
    features: Tensor | None
    notes: list[str]


def example_of(module: TrainedModel, texts: Sequence[str]) -> Example:
    """Return a trained model with a batch of texts, and of a longer sequence so that they are padded.

    Raises:
        UserError: If a text is empty or too long to be drawn.
    """
    tokenizers, settings = module.tokenizers, module.settings
    ids, features = map(list, zip(*map(tokenizers.encode, texts), strict=True))
    notes = [f"Sequence {len(texts)} was added to be longer than the others, so that they are padded."]
    for number, (text, sequence) in enumerate(zip(texts, ids, strict=True)):
        if not sequence or not text.strip() or len(sequence) > MAX_STEPS:
            raise UserError(f"text={text} has {len(sequence)} tokens; it must have 1 to {MAX_STEPS}")
        own, own_features = tokenizers.tokens(text)
        found = zip([*own, *own_features], [*sequence, *features[number]], strict=True)
        unknown = [token for token, id_ in found if id_ == UNK]
        if own_features:
            places = "in the encoder and " * (module.model.features.encoder_map is not None) + "after the bridge"
            notes.append(f"Sequence {number} has the features {' '.join(own_features)}; they are added {places}.")
        if unknown:
            notes.append(f"Sequence {number}: not in the vocabulary, read as {SPECIALS[UNK]}: {' '.join(unknown)}")
    longest = max(ids, key=len)
    ids.append(longest + (2 * longest)[:2])
    features.append([])
    tokens = [tokenizers.source.vocabulary.tokens(sequence) for sequence in ids]
    sequences, everything = FlatSequences(ids), torch.arange(len(ids))
    read = FlatSequences(features).padded(everything) if tokenizers.features else None
    batch = (tokens, sequences.padded(everything), sequences.lengths, read)
    return Example(module.model, settings["model"], settings["handoff"], *batch, notes)


def first_symbols(tokenizers: Tokenizers, size: int) -> str:
    """Return a text of the first symbols of the vocabulary, the most frequent ones, without features."""
    vocabulary = tokenizers.source.vocabulary
    symbols = sorted(vocabulary.symbols[:size], key=lambda symbol: symbol.count(COLUMN))  # column by column
    columns = COLUMN * (tokenizers.columns - tokenizers.source.columns)
    return tokenizers.source.decode(vocabulary.ids(symbols)) + columns


def layers_of(part: Mapping[str, Any]) -> str:
    """Return the layers of an encoder or a decoder in words, such as ``2-layer bidirectional GRU``."""
    directions = "bidirectional " if part.get("bidirectional") else ""
    return f"{part['num_layers']}-layer {directions}{part['cell'].upper()}"


def verdict(measured: Verification) -> list[str]:
    """Return what was verified, or what is wrong: a heading and what belongs to it."""
    if measured.faults:
        shown, more = measured.faults[:SHOWN_FAULTS], measured.faults[SHOWN_FAULTS:]
        rest = [f"and {len(more)} more"] if more else []
        return [f"What is handed over is wrong in {len(measured.faults)} places:", *shown, *rest]
    return [
        "Verified on this batch, in float64:",
        "the top layer's final states are in output, at the ends of each sequence;",
        "each sequence alone gives the same state and output as in the batch;",
        *["every row of h_n and c_n is what nn.GRU or nn.LSTM returns for its sequence;"] * measured.compared,
        "the mask is True at real tokens only, and no sequence reaches another's state;",
        "training computes the same as prediction, with `fast` layers and without;",
        "every decoder layer starts from the encoder layer that its bridge assigns to it.",
    ]
