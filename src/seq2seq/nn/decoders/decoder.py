"""What all decoders share, and the law that they obey.

The law: any number of tokens in one call gives what the same tokens give in several calls, so teacher forcing and
decoding step by step are the same code.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from seq2seq.nn.attention import Attention
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.fast.dropout import Dropout
from seq2seq.nn.fast.packing import Packing, Rows
from seq2seq.nn.fast.rnn import run
from seq2seq.nn.memory import Memory, look
from seq2seq.nn.state import RNNS, RNNState


class State(Rows, Protocol):
    """What a decoder keeps between calls; nobody else looks into it."""


class DecoderOutput(NamedTuple):
    """What a decoder predicts.

    Attributes:
        logits: Unnormalised log-probabilities of the next token, ``(B, T, V)``, or ``(N, V)`` if a packing was given.
        state: After the last token.
        weights: Attention over the source, ``(B, T, S)``; None without attention. With a packing, those at padding mean
            nothing.
    """

    logits: Tensor
    state: State
    weights: Tensor | None


class Decoder(nn.Module):
    """A recurrent decoder with attention; the kinds differ in where the context enters.

    All predict from ``tanh(W [context; output])`` (Luong et al. 2015, equation 5), where ``output`` is that of the top
    layer.

    Args:
        vocabulary_size: Number of target symbols, V.
        embedding_size: E.
        hidden_size: H'.
        cell: ``gru`` or ``lstm``.
        attention: Over the encoder's outputs.
        extra_sizes: What each layer, from the bottom up, reads beside the embedding or the layer below; L' of them.
        dropout: Probability of dropping a unit of the embedding, between layers and before the prediction.
        tied: Whether the embeddings are the weights of the prediction, too (Press and Wolf 2017).
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        cell: str,
        attention: Attention,
        extra_sizes: Sequence[int],
        dropout: float,
        tied: bool,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.dropout = Dropout(dropout)
        sizes = [embedding_size] + [hidden_size] * (len(extra_sizes) - 1)
        self.layers = nn.ModuleList(
            RNNS[cell](size + extra, hidden_size, batch_first=True)
            for size, extra in zip(sizes, extra_sizes, strict=True)
        )
        self.attention = attention
        self.combine = nn.Linear(
            attention.context_size + hidden_size, embedding_size if tied else hidden_size, bias=False
        )
        self.predict = nn.Linear(self.combine.out_features, vocabulary_size)
        if tied:
            self.predict.weight = self.embedding.weight

    def remember(self, encoded: EncoderOutput) -> Memory:
        """Compute, once for a source batch, what attention looks back at."""
        return self.attention.remember(encoded.outputs, encoded.mask)

    def start(self, state: RNNState) -> State:
        """Return the state before the first token, of what the bridge hands over, ``(L', 1, B, H')``."""
        return state

    def forward(self, targets: Tensor, memory: Memory, state: Any, packing: Packing | None = None) -> DecoderOutput:  # noqa: ANN401 - its own State
        """Read T tokens and predict the one after each.

        Args:
            targets: Token ids; a row's padding, at its end, changes nothing before it, ``(B, T)``.
            memory: Of the source batch.
            state: From `start` at first, then from the last call.
            packing: Where the real tokens stand. With it, padding stays out of recurrence and prediction; the logits
                are those of real tokens, in its order, and the state is that after each row's last one. Without it, all
                are real.
        """
        places = packing or Packing.full(*targets.shape)
        combined, after, weights = self.decode(targets, places, memory, places.sort(state))
        logits = self.logits(combined)
        return DecoderOutput(logits if packing else places.pad(logits), places.unsort(after), weights)

    def decode(
        self,
        targets: Tensor,
        packing: Packing,
        memory: Memory,
        state: Any,  # noqa: ANN401 - its own State
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read T tokens; what the kinds do each in their way.

        Args:
            targets: As in `forward`, ``(B, T)``.
            packing: Where the real tokens stand, N of them.
            memory: As in `forward`.
            state: As in `forward`, but in the order of the packing.

        Returns:
            What predicts, by `combined`, packed, ``(N, H')``, or E if tied; the state after each row's last token, in
            the order of the packing; and the weights, ``(B, T, S)``.
        """
        raise NotImplementedError

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of token ids, ``(..., E)``."""
        return self.dropout(self.embedding(tokens))

    def run(self, layer: int, inputs: Tensor, packing: Packing, state: RNNState) -> tuple[Tensor, RNNState]:
        """Run one layer over all tokens in one call: ``(N, ...)`` to ``(N, H')``, and its state after them."""
        if layer > 0:
            inputs = self.dropout(inputs)
        rnn: Any = self.layers[layer]
        return run(rnn, inputs, packing, state.layer(layer))

    def attend(self, outputs: Tensor, packing: Packing, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Attend with the outputs of a layer, packed, ``(N, H')``: contexts, packed likewise, and the weights."""
        contexts, weights = look(self.attention, packing.pad(outputs), memory)
        return packing.pack(contexts), weights

    def combined(self, contexts: Tensor, outputs: Tensor) -> Tensor:
        """Join the contexts and the top layer's outputs into what predicts, ``(..., H')``, or E if tied."""
        return self.combine(torch.cat([contexts, outputs], dim=-1)).tanh()

    def logits(self, combined: Tensor) -> Tensor:
        """Predict, ``(..., V)``."""
        return self.predict(self.dropout(combined))
