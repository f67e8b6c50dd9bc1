"""The decoder: one law for training and for stepping.

``decoder(targets, memory, state)`` takes any number of steps T >= 1. Teacher forcing gives it the whole target,
decoding gives it one token at a time with the state it returned, and both are the same numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.errors import check_choice, check_count, check_number
from seq2seq.nn.attention import Memory, build_attention
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.state import RNNS, RNNState


class DecoderOutput(NamedTuple):
    """What the decoder says after each of T tokens.

    Attributes:
        logits: Unnormalised log-probabilities of the next token, ``(B, T, V)``.
        state: After the last of the T tokens, ``(L', 1, B, H')``.
        weights: Attention over the source, ``(B, T, S)``; None without attention.
    """

    logits: Tensor
    state: RNNState
    weights: Tensor | None


class LuongDecoder(nn.Module):
    """Recurrence first, attention after (Luong et al. 2015, section 3.1, global attention).

    The recurrent network reads the target alone, starting from the handed-over state; its outputs then attend, and
    ``tanh(W [context; output])`` (equation 5) predicts. Nothing in the recurrence waits for the attention, so any
    number of steps is one call of the network, without a loop in Python. Their input feeding (section 3.3) is left out.

    Args:
        vocabulary_size: Number of target symbols, V.
        embedding_size: E.
        hidden_size: H'.
        num_layers: L'.
        cell: ``gru`` or ``lstm``.
        memory_size: Size of an encoder output, D * H.
        attention: ``general``, ``dot``, ``additive`` or ``none``.
        dropout: Probability of dropping a unit of the embedding, between layers and before the prediction.

    Raises:
        UserError: If a value is not allowed or the sizes do not fit the attention.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        cell: str,
        memory_size: int,
        attention: str,
        dropout: float,
    ) -> None:
        super().__init__()
        check_choice("model.decoder.cell", cell, RNNS)
        check_count("model.decoder.num_layers", num_layers)
        check_count("model.decoder.hidden_size", hidden_size)
        check_count("model.decoder.embedding_size", embedding_size)
        dropout = check_number("model.dropout", dropout, 0, 1)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.dropout = nn.Dropout(dropout)
        self.rnn = RNNS[cell](
            embedding_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.attention = build_attention(attention, query_size=hidden_size, value_size=memory_size)
        self.combine = nn.Linear(self.attention.context_size + hidden_size, hidden_size, bias=False)
        self.predict = nn.Linear(hidden_size, vocabulary_size)

    def remember(self, encoded: EncoderOutput) -> Memory:
        """Compute, once for a source batch, what attention looks back at."""
        return Memory(self.attention.keys(encoded.outputs), encoded.outputs, encoded.mask)

    def forward(self, targets: Tensor, memory: Memory, state: RNNState) -> DecoderOutput:
        """Read T tokens and predict the one after each.

        Args:
            targets: Token ids; a row's padding, at its end, changes nothing before it, ``(B, T)``.
            memory: Of the source batch.
            state: From the bridge at first, then from the last call, ``(L', 1, B, H')``.
        """
        embedded = self.dropout(self.embedding(targets))  # (B, T, E)
        outputs, packed_state = self.rnn(embedded, state.to_torch())  # (B, T, H')
        contexts, weights = self.attention(outputs, memory)
        combined = self.combine(torch.cat([contexts, outputs], dim=-1)).tanh()
        return DecoderOutput(self.predict(self.dropout(combined)), RNNState.from_torch(packed_state, 1), weights)
