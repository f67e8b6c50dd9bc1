"""The complete model: encoder, bridge and decoder.

::

    source -> Encoder -+- outputs -----------------> attention -+
                       |                                ^       v
                       +- h_n, c_n -> Bridge ---> + ----|--> Decoder -> logits
                                                  ^     |       ^
    features, if there are any -> Features -------+-----+-------+
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from seq2seq.nn.attention import Memory, build_attention
from seq2seq.nn.bridge import Bridge
from seq2seq.nn.decoders import Decoder, DecoderOutput, build_decoder
from seq2seq.nn.encoder import Encoder, EncoderOutput
from seq2seq.nn.features import Features, FeatureVectors
from seq2seq.nn.state import RNNState


class Encoded(NamedTuple):
    """A source batch, ready to be decoded.

    Attributes:
        memory: What the decoder attends to.
        state: The decoder's state before the next token.
    """

    memory: Memory
    state: Any

    def select(self, indices: Tensor) -> Self:
        """Return the sequences at ``indices``, in that order."""
        return self._replace(memory=self.memory.select(indices), state=self.state.select(indices))


class Seq2Seq(nn.Module):
    """An encoder, a bridge and a decoder.

    Args:
        encoder: An `Encoder`, or a module that is called like one.
        bridge: A `Bridge`, or a module that is called like one.
        decoder: A decoder, which starts from the bridge's result and attends to the encoder's outputs.
        features: `Features`, for sequences that come with some; else None.

    Example:
        >>> import torch
        >>> sizes = {"cell": "gru", "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
        >>> model = build_model(source_size=9, target_size=6, encoder=sizes | {"bidirectional": True},
        ...                     decoder=sizes | {"kind": "gnmt", "input_feeding": False, "tied": False},
        ...                     bridge="linear", attention="general", dropout=0.0)
        >>> source, lengths = torch.ones(4, 5, dtype=torch.long), torch.tensor([5, 2, 1, 4])
        >>> model(source, lengths, targets=torch.ones(4, 3, dtype=torch.long)).logits.shape
        torch.Size([4, 3, 6])
    """

    def __init__(
        self, encoder: nn.Module, bridge: nn.Module, decoder: Decoder, features: Features | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.bridge = bridge
        self.decoder = decoder
        self.features = features

    @property
    def has_attention(self) -> bool:
        """Whether the decoder attends, and returns weights."""
        return self.decoder.attention.context_size > 0

    def forward(
        self, source: Tensor, lengths: Tensor, targets: Tensor, features: Tensor | None = None
    ) -> DecoderOutput:
        """Predict under teacher forcing: read ``targets``, ``(B, T)``, and predict the token after each."""
        memory, state = self.encode(source, lengths, features)
        return self.decoder(targets, memory, state)

    def encode(self, source: Tensor, lengths: Tensor, features: Tensor | None = None) -> Encoded:
        """Encode a padded batch and hand its final state over to the decoder.

        Args:
            source: Token ids, right-padded, ``(B, S)``.
            lengths: Number of real tokens of each sequence, on the CPU, ``(B,)``.
            features: Ids of the features of each sequence, right-padded, ``(B, F)``; None if they have none.

        Raises:
            ValueError: If a model without features is given some.
        """
        return self.hand_over(*self.run_encoder(source, lengths, features))

    def run_encoder(
        self, source: Tensor, lengths: Tensor, features: Tensor | None = None
    ) -> tuple[EncoderOutput, FeatureVectors | None]:
        """Return the encoder's output, and what the features contribute; see `encode` for the arguments."""
        if self.features is None:
            if features is not None:
                raise ValueError("the model was built without features, and is given some")
            return self.encoder(source, lengths), None
        vectors: FeatureVectors = self.features(source[:, :0] if features is None else features)
        added = () if vectors.to_encoder is None else (vectors.to_encoder,)
        return self.encoder(source, lengths, *added), vectors

    def hand_over(self, encoded: EncoderOutput, features: FeatureVectors | None) -> Encoded:
        """Return what the decoder starts from: the bridge's result, to which features are added afterwards."""
        initial: RNNState = self.bridge(encoded.state)
        if features is None:
            memory = self.decoder.init_memory(encoded)
        else:
            initial = features.added_to(initial)
            memory = self.decoder.init_memory(features.beside(encoded))._replace(added=features.to_inputs)
        return Encoded(memory, self.decoder.init_state(initial, memory))

    def step(self, tokens: Tensor, encoded: Encoded) -> tuple[Tensor, Encoded]:
        """Read one token per sequence, ``(B,)``; return the next token's logits, ``(B, V)``, and the new state."""
        output = self.decoder(tokens.unsqueeze(1), encoded.memory, encoded.state)
        return output.logits.squeeze(1), encoded._replace(state=output.state)


def build_model(
    *,
    source_size: int,
    target_size: int,
    features_size: int = 0,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    bridge: str,
    attention: str | Mapping[str, Any],
    dropout: float,
    fast: bool = False,
) -> Seq2Seq:
    """Build a model from plain values.

    Args:
        source_size: Number of source symbols.
        target_size: Number of target symbols.
        features_size: Number of feature symbols; 0 builds a model without features.
        encoder: The remaining arguments of `Encoder`, and ``reads_features``, whether it reads the features, too.
        decoder: The remaining arguments of `build_decoder`.
        bridge: A key of `seq2seq.nn.bridge.BRIDGES`.
        attention: A key of `seq2seq.nn.attention.ATTENTIONS`, or a mapping with the key as ``name`` and options.
        dropout: Dropout probability of encoder and decoder.
        fast: Whether training on a CPU may use `seq2seq.nn.fast`.

    Raises:
        ValueError: If a value is not allowed, or the parts do not fit together.
    """
    encoder = dict(encoder)
    reads_features = encoder.pop("reads_features", False)
    if reads_features and not features_size:
        raise ValueError(
            "model.encoder.reads_features=true needs features; give data.features_column and data.features_tokens"
        )
    built_encoder = Encoder(vocabulary_size=source_size, dropout=dropout, fast=fast, **encoder)
    options = {"name": attention} if isinstance(attention, str) else attention
    value_size = built_encoder.output_size
    built_attention = build_attention(**options, query_size=decoder["hidden_size"], value_size=value_size)
    built_decoder = build_decoder(
        vocabulary_size=target_size, attention=built_attention, dropout=dropout, fast=fast, **decoder
    )
    state_sizes = {key: decoder[key] for key in ("num_layers", "hidden_size", "cell")}
    built_bridge = Bridge(bridge, encoder=built_encoder, **state_sizes)
    features = None
    if features_size:
        sizes = {key: decoder[key] for key in ("embedding_size", "num_layers", "hidden_size")}
        sizes |= {"value_size": value_size, "encoder_size": encoder["embedding_size"] if reads_features else None}
        features = Features(vocabulary_size=features_size, **sizes)
    return Seq2Seq(built_encoder, built_bridge, built_decoder, features)
