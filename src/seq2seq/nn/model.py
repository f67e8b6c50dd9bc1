"""Encoder, bridge and decoder joined."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from seq2seq.errors import check_keys
from seq2seq.nn.attention import Memory
from seq2seq.nn.bridge import Bridge
from seq2seq.nn.decoder import DecoderOutput, LuongDecoder
from seq2seq.nn.encoder import Encoder
from seq2seq.nn.state import RNNState


class Encoded(NamedTuple):
    """A source batch, ready to be decoded.

    Attributes:
        memory: What attention looks back at.
        state: The decoder's initial state, ``(L', 1, B, H')``.
    """

    memory: Memory
    state: RNNState

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
        >>> model = build_model(source_size=9, target_size=6, encoder=part | {"bidirectional": True}, decoder=part,
        ...                     bridge="linear", attention="general", dropout=0.0)
        >>> source, lengths = torch.ones(4, 5, dtype=torch.long), torch.tensor([5, 2, 1, 4])
        >>> model(source, lengths, targets=torch.ones(4, 3, dtype=torch.long)).logits.shape
        torch.Size([4, 3, 6])
    """

    def __init__(self, encoder: nn.Module, bridge: nn.Module, decoder: LuongDecoder) -> None:
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
        encoded = self.encoder(source, lengths)
        return Encoded(self.decoder.remember(encoded), self.bridge(encoded.state))

    def forward(self, source: Tensor, lengths: Tensor, targets: Tensor) -> DecoderOutput:
        """Predict under teacher forcing: ``targets``, ``(B, T)``, are read, the token after each is predicted."""
        memory, state = self.encode(source, lengths)
        return self.decoder(targets, memory, state)


MODEL_KEYS = {"encoder", "decoder", "bridge", "attention", "dropout"}
PART_KEYS = {"cell", "embedding_size", "hidden_size", "num_layers"}


def build_model(
    *,
    source_size: int,
    target_size: int,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    bridge: str,
    attention: str,
    dropout: float,
) -> Seq2Seq:
    """Build the model that the plain values of ``model`` in a config describe.

    Args:
        source_size: Number of source symbols.
        target_size: Number of target symbols.
        encoder: The other arguments of `Encoder`.
        decoder: The other arguments of `LuongDecoder`.
        bridge: See `Bridge`.
        attention: See `seq2seq.nn.attention`.
        dropout: Of both.

    Raises:
        UserError: If a key is unknown or missing, a value is not allowed, or the parts do not fit each other.
    """
    check_keys("model.encoder", encoder, PART_KEYS | {"bidirectional"})
    check_keys("model.decoder", decoder, PART_KEYS)
    built_encoder = Encoder(vocabulary_size=source_size, dropout=dropout, **encoder)
    built_decoder = LuongDecoder(
        vocabulary_size=target_size,
        memory_size=built_encoder.output_size,
        attention=attention,
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
