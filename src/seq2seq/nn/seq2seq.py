"""Encoder, bridge and decoder joined."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from seq2seq.errors import UserError, check_choice, check_count, check_flag, check_keys, check_number
from seq2seq.nn.attention import build_attention
from seq2seq.nn.bridge import Bridge
from seq2seq.nn.decoders.bahdanau import BahdanauDecoder
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput, State
from seq2seq.nn.decoders.gnmt import GNMTDecoder
from seq2seq.nn.decoders.luong import InputFeedingDecoder, LuongDecoder
from seq2seq.nn.encoder import Encoder, EncoderOutput
from seq2seq.nn.memory import Memory
from seq2seq.nn.state import RNNS, RNNState


class Encoded(NamedTuple):
    """A source batch, ready to be decoded.

    Attributes:
        memory: What attention looks back at.
        state: The decoder's, before the first token.
    """

    memory: Memory
    state: State

    def select(self, rows: Tensor) -> Self:
        """Return the given rows of the batch, ``(B')``."""
        return self._replace(memory=self.memory.select(rows), state=self.state.select(rows))


class Seq2Seq(nn.Module):
    """An encoder, a bridge and a decoder.

    Args:
        encoder: An `Encoder`, or a module that is called as one.
        bridge: A `Bridge`, or likewise.
        decoder: It starts from the bridge's result and attends to the encoder's outputs.

    Example:
        >>> import torch
        >>> part = {"cell": "gru", "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
        >>> kind = {"kind": "gnmt", "input_feeding": False, "tied": False}
        >>> model = build_model(source_size=9, target_size=6, encoder=part | {"bidirectional": True},
        ...                     decoder=part | kind, bridge="linear", attention="general", num_heads=1, dropout=0.0)
        >>> source, lengths = torch.ones(4, 5, dtype=torch.long), torch.tensor([5, 2, 1, 4])
        >>> model(source, lengths, targets=torch.ones(4, 3, dtype=torch.long)).logits.shape
        torch.Size([4, 3, 6])
    """

    def __init__(self, encoder: nn.Module, bridge: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.bridge = bridge
        self.decoder = decoder

    def encode(self, source: Tensor, lengths: Tensor) -> Encoded:
        """Encode a padded batch and hand its final state over.

        Args:
            source: Token ids, ``(B, S)``.
            lengths: Number of real tokens in each row, on the CPU, ``(B,)``.
        """
        encoded: EncoderOutput = self.encoder(source, lengths)
        handed: RNNState = self.bridge(encoded.state)
        return Encoded(self.decoder.remember(encoded), self.decoder.start(handed))

    def forward(self, source: Tensor, lengths: Tensor, targets: Tensor) -> DecoderOutput:
        """Predict under teacher forcing: ``targets``, ``(B, T)``, are read, the token after each is predicted."""
        memory, state = self.encode(source, lengths)
        return self.decoder(targets, memory, state)


MODEL_KEYS = {"encoder", "decoder", "bridge", "attention", "num_heads", "dropout"}
PART_KEYS = {"cell", "embedding_size", "hidden_size", "num_layers"}

DECODERS: dict[str, type[Decoder]] = {"luong": LuongDecoder, "gnmt": GNMTDecoder, "bahdanau": BahdanauDecoder}
"""The decoders by the word that stands for them in a config (``model.decoder.kind``)."""


def build_decoder(
    *,
    kind: str,
    input_feeding: bool,
    tied: bool,
    vocabulary_size: int,
    embedding_size: int,
    hidden_size: int,
    num_layers: int,
    cell: str,
    memory_size: int,
    attention: str,
    num_heads: int,
    dropout: float,
) -> Decoder:
    """Build the decoder that ``model.decoder`` names.

    Args:
        kind: ``luong``, ``gnmt`` or ``bahdanau``.
        input_feeding: Of ``luong`` only: whether the bottom layer reads what predicted the token before.
        tied: Whether the embeddings are the weights of the prediction, too.
        vocabulary_size: Number of target symbols, V.
        embedding_size: E.
        hidden_size: H'.
        num_layers: L'.
        cell: ``gru`` or ``lstm``.
        memory_size: Size of an encoder output, D * H.
        attention: See `seq2seq.nn.attention`.
        num_heads: Of ``multihead`` attention.
        dropout: Probability of dropping a unit of the embedding, between layers and before the prediction.

    Raises:
        UserError: If a value is not allowed, or some do not fit each other.
    """
    check_choice("model.decoder.kind", kind, DECODERS)
    check_choice("model.decoder.cell", cell, RNNS)
    check_count("model.decoder.num_layers", num_layers)
    check_count("model.decoder.hidden_size", hidden_size)
    check_count("model.decoder.embedding_size", embedding_size)
    check_flag("model.decoder.tied", tied)
    if check_flag("model.decoder.input_feeding", input_feeding) and kind != "luong":
        raise UserError(f"model.decoder.input_feeding=true does not fit model.decoder.kind={kind}; use luong or false")
    if kind == "gnmt" and num_layers == 1:
        raise UserError(
            "model.decoder.num_layers=1 does not fit model.decoder.kind=gnmt, whose context feeds the layers "
            "above the bottom one; use luong, which it would be, or 2 or more"
        )
    built = build_attention(attention, query_size=hidden_size, value_size=memory_size, num_heads=num_heads)
    fed, context = embedding_size if tied else hidden_size, built.context_size
    bottom, upper = {"luong": (fed if input_feeding else 0, 0), "gnmt": (0, context), "bahdanau": (context, 0)}[kind]
    return (InputFeedingDecoder if input_feeding else DECODERS[kind])(
        vocabulary_size=vocabulary_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        cell=cell,
        attention=built,
        extra_sizes=[bottom] + [upper] * (num_layers - 1),
        dropout=check_number("model.dropout", dropout, 0, 1),
        tied=tied,
    )


def build_model(
    *,
    source_size: int,
    target_size: int,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    bridge: str,
    attention: str,
    num_heads: int,
    dropout: float,
) -> Seq2Seq:
    """Build the model that the plain values of ``model`` in a config describe.

    Args:
        source_size: Number of source symbols.
        target_size: Number of target symbols.
        encoder: The other arguments of `Encoder`.
        decoder: The other arguments of `build_decoder`.
        bridge: See `Bridge`.
        attention: See `seq2seq.nn.attention`.
        num_heads: Of ``multihead`` attention.
        dropout: Of both.

    Raises:
        UserError: If a key is unknown or missing, a value is not allowed, or the parts do not fit each other.
    """
    check_keys("model.encoder", encoder, PART_KEYS | {"bidirectional"})
    check_keys("model.decoder", decoder, PART_KEYS | {"kind", "input_feeding", "tied"})
    built_encoder = Encoder(vocabulary_size=source_size, dropout=dropout, **encoder)
    built_decoder = build_decoder(
        vocabulary_size=target_size,
        memory_size=built_encoder.output_size,
        attention=attention,
        num_heads=num_heads,
        dropout=dropout,
        **decoder,
    )
    handover = Bridge(
        bridge,
        encoder=built_encoder,
        num_layers=decoder["num_layers"],
        hidden_size=decoder["hidden_size"],
        cell=decoder["cell"],
    )
    return Seq2Seq(built_encoder, handover, built_decoder)
