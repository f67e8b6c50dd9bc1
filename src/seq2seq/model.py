"""The section ``model`` of a config, and a trained model without what only training needs."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StringConstraints

from seq2seq.data.tokenizer import Tokenizers
from seq2seq.errors import about_setting
from seq2seq.handoff.mistakes import MISTAKES, RIGHT, WrongEncoder, check_effect
from seq2seq.nn import Seq2Seq, build_model
from seq2seq.settings import Fraction, Settings, read_settings

log = logging.getLogger(__name__)

Fast = Literal["auto", False]
"""Whether training on a CPU may use `seq2seq.nn.fast`."""

Length = Annotated[int, Field(ge=1, le=100_000)]
"""A maximum number of tokens in a prediction; a search reserves memory for so many."""

Size = Annotated[int, Field(ge=1, le=100_000)]
"""A size of a layer; larger ones do not fit into any memory."""


class PartSettings(Settings):
    """The keys that ``model.encoder`` and ``model.decoder`` share."""

    cell: Literal["gru", "lstm"]
    embedding_size: Size
    hidden_size: Size
    num_layers: Annotated[int, Field(ge=1, le=1000)]


class EncoderSettings(PartSettings):
    """The keys of ``model.encoder``."""

    bidirectional: bool
    reads_features: bool = False


class DecoderSettings(PartSettings):
    """The keys of ``model.decoder``."""

    kind: str
    input_feeding: bool = False
    tied: bool = False


class AttentionSettings(Settings, extra="allow"):
    """The keys of ``model.attention``: a name, and the options of that attention."""

    name: str


class ModelSettings(Settings):
    """The keys of ``model``."""

    encoder: EncoderSettings
    decoder: DecoderSettings
    bridge: str
    attention: Annotated[str, StringConstraints(min_length=1)] | AttentionSettings
    dropout: Fraction


def model_from_config(
    settings: Mapping[str, Any],
    *,
    source_size: int,
    target_size: int,
    features_size: int = 0,
    handoff: str = RIGHT,
    fast: str | bool = "auto",
) -> Seq2Seq:
    """Build the model that the section ``model`` describes, with so many source and target symbols, and features.

    The handoff is ``right``, or a mistake that is made on purpose; for ``fast``, see `Fast`.

    Raises:
        UserError: If a value is not allowed, or the parts do not fit each other.
    """
    values = read_settings(ModelSettings, settings, "model").model_dump()
    with about_setting("model"):
        sizes = {"source_size": source_size, "target_size": target_size, "features_size": features_size}
        model = build_model(**sizes, fast=fast == "auto", **values)
    if handoff == RIGHT:
        return model
    wrong = WrongEncoder(model.encoder, handoff)
    check_effect(handoff, settings)
    log.warning("handoff=%s is wrong on purpose; it hands over: %s", handoff, MISTAKES[handoff].effect)
    return Seq2Seq(wrong, model.bridge, model.decoder, model.features)


class TrainedModel(NamedTuple):
    """A model with the tokenizers of its text: all that prediction needs.

    Attributes:
        model: A `Seq2Seq`, or a module that is called like one.
        max_length: Maximum number of tokens in a prediction.
        settings: What the checkpoint says of it: ``model``, ``handoff``, ``data``, ...
    """

    model: Any
    tokenizers: Tokenizers
    max_length: int
    settings: Mapping[str, Any]

    @property
    def target_size(self) -> int:
        """Number of target symbols, V."""
        return len(self.tokenizers.target.vocabulary)


class _Values(Settings, extra="ignore"):
    fast: Fast = "auto"
    max_length: Length


def trained_model(settings: Mapping[str, Any]) -> TrainedModel:
    """Build the model that ``settings``, the arguments of `Seq2SeqModule`, describe; its weights are random.

    Raises:
        UserError: If a value is not allowed.
    """
    values = read_settings(_Values, settings, "search")
    tokenizers = Tokenizers.from_dicts({part: settings.get(f"{part}_tokenizer") for part in Tokenizers._fields})
    sizes = {f"{part}_size": size for part, size in tokenizers.sizes().items()}
    model = model_from_config(settings["model"], handoff=settings["handoff"], fast=values.fast, **sizes)
    return TrainedModel(model, tokenizers, values.max_length, settings)
