"""The base class of all decoders, and the contract that they follow.

The contract: reading tokens in one call gives the same result as reading them in several calls, so teacher forcing and
step-by-step decoding run the same code.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from seq2seq.nn.attention import Attention, Memory
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.rnn import make_dropout, make_rnn, run_rnn
from seq2seq.nn.state import RNNState


class DecoderState(NamedTuple):
    """What a decoder knows between two calls.

    Attributes:
        rnn: State of the recurrent layers, ``(L', 1, B, H')``.
        attention: State of an attention that has one, ``(B, ...)``; else None.
        prev_attentional_state: With input feeding, that of the previous step, zero at first, ``(B, 1, H')``, or
            ``(B, 1, E)`` if tied; else None.
    """

    rnn: RNNState
    attention: Tensor | None = None
    prev_attentional_state: Tensor | None = None

    def select(self, indices: Tensor) -> Self:
        """Return the state of the sequences at ``indices``, in that order; an index may occur more than once."""
        rnn, *others = self
        return type(self)(rnn.select(indices), *(None if one is None else one[indices] for one in others))


class DecoderOutput(NamedTuple):
    """What a decoder returns.

    Attributes:
        logits: Unnormalised log-probabilities of the token after each target token, ``(B, T, V)``.
        state: State after the last token, a `DecoderState`, or what else the decoder understands and has ``select``.
        weights: Attention over the source, and then over features, if any, ``(B, T, S)``; None without attention.
    """

    logits: Tensor
    state: Any
    weights: Tensor | None


class Decoder(nn.Module):
    """A recurrent decoder with attention.

    All decoders predict from the attentional state ``tanh(W [context; output])`` (Luong et al. 2015, equation 5), where
    ``output`` is that of the top layer.

    Args:
        vocabulary_size: Number of target symbols, V.
        embedding_size: Embedding size, E.
        hidden_size: Hidden size, H'.
        num_layers: Number of layers, L'.
        cell: ``gru`` or ``lstm``.
        attention: Attention over the encoder's outputs.
        dropout: Dropout probability after the embedding, between layers and before the output layer.
        tied: Whether the output layer shares its weights with the embedding (Press and Wolf 2017). The attentional
            state then has size E instead of H'.
        fast: Whether training on a CPU may use `seq2seq.nn.fast`.
    """

    with_input_feeding: ClassVar["type[Decoder] | None"] = None
    """The class that is built for ``input_feeding=true``; None if that is not possible."""

    min_layers: ClassVar[int] = 1
    """Minimum number of layers, L'."""

    def __init__(
        self,
        *,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        cell: str,
        attention: Attention,
        dropout: float,
        tied: bool = False,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.dropout = make_dropout(dropout, fast=fast)
        self.attention = attention
        attentional_size = embedding_size if tied else hidden_size
        self.attentional_layer = nn.Linear(attention.context_size + hidden_size, attentional_size, bias=False)
        self.output_layer = nn.Linear(attentional_size, vocabulary_size)
        if tied:
            self.output_layer.weight = self.embedding.weight
        sizes = [embedding_size] + [hidden_size] * (num_layers - 1)
        context_sizes = self.context_sizes(num_layers, attention.context_size, attentional_size)
        self.layers = nn.ModuleList(
            make_rnn(cell, size + context_size, hidden_size, fast=fast)
            for size, context_size in zip(sizes, context_sizes, strict=True)
        )

    @staticmethod
    def context_sizes(num_layers: int, context_size: int, attentional_size: int) -> list[int]:
        """Return, for each layer from the bottom up, the size of what it reads beside the usual layer input."""
        raise NotImplementedError

    def init_memory(self, encoded: EncoderOutput) -> Memory:
        """Compute the keys and values for attention; called once per source batch."""
        return self.attention.init_memory(encoded.outputs, encoded.mask)

    def init_state(self, state: RNNState, memory: Memory) -> Any:  # noqa: ANN401 - see `DecoderOutput`
        """Return the state before the first token, given what the bridge returns, plus features, ``(L', 1, B, H')``."""
        start = getattr(self.attention, "init_state", None)
        return DecoderState(state, start(memory) if start else None)

    def forward(self, targets: Tensor, memory: Memory, state: Any) -> DecoderOutput:  # noqa: ANN401 - see `DecoderOutput`
        """Read T tokens and predict the one after each.

        Args:
            targets: Token ids, ``(B, T)``; with K hypotheses for each sequence of the memory, ``(B * K, T)``.
            memory: Memory of the source batch, from `init_memory`.
            state: State from `init_state` in the first call, then from the previous call.
        """
        raise NotImplementedError

    def embed(self, targets: Tensor, memory: Memory) -> Tensor:
        """Return the embeddings of token ids, ``(B, T, E)``, with what features add to each.

        In beam search, the K hypotheses of a sequence, which are neighbours, share its features, as in `attend`.
        """
        embedded = self.dropout(self.embedding(targets))
        if memory.added is None:
            return embedded
        grouped = embedded.reshape(memory.added.size(0), -1, embedded.size(-1))  # (B, K * T, E)
        return (grouped + memory.added).reshape(*targets.shape, -1)

    def run_layer(self, number: int, inputs: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        """Run one layer over all T steps; return its outputs, ``(B, T, H')``, and its state, ``(1, 1, B, H')``."""
        layer: Any = self.layers[number]
        return run_rnn(layer, self.dropout(inputs) if number > 0 else inputs, state=state)

    def run_layers(self, inputs: Tensor, states: Sequence[RNNState]) -> tuple[Tensor, list[RNNState]]:
        """Run all layers over all T steps; return the top outputs, ``(B, T, H')``, and the state of each layer."""
        after = []
        for number, state in enumerate(states):
            inputs, state_after = self.run_layer(number, inputs, state)
            after.append(state_after)
        return inputs, after

    def attend(
        self, queries: Tensor, memory: Memory, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Attend with the outputs of a layer.

        In beam search, the K hypotheses of a sequence share its memory: their queries, ``(B * K, T, H')``, are
        reshaped to ``(B, K * T, H')``. Each has a state of its own, so an attention with a
        state gets the memory K times.

        Returns:
            Contexts, ``(B, T, C)``; weights, ``(B, T, S)``; and the state of the attention after them, None if it has
            none.
        """
        attention: Any = self.attention
        sequences, (batch, steps) = memory.mask.size(0), queries.shape[:2]
        if state is not None:
            return attention(queries, memory.repeat(batch // sequences), state)
        contexts, weights = attention(queries.reshape(sequences, -1, queries.size(-1)), memory)
        return contexts.reshape(batch, steps, -1), None if weights is None else weights.reshape(batch, steps, -1), None

    def attentional_state(self, contexts: Tensor, outputs: Tensor) -> Tensor:
        """Combine contexts and top-layer outputs, to ``(B, T, H')``, or ``(B, T, E)`` with tied embeddings."""
        return self.attentional_layer(torch.cat([contexts, outputs], dim=-1)).tanh()

    def predict(self, attentional_state: Tensor) -> Tensor:
        """Return the logits, ``(B, T, V)``."""
        return self.output_layer(self.dropout(attentional_state))


def join_steps(weights: list[Tensor | None]) -> Tensor | None:
    """Concatenate the attention weights of all steps, ``(B, 1, S)`` each, to ``(B, T, S)``; None without attention."""
    steps = [step for step in weights if step is not None]
    return torch.cat(steps, dim=1) if steps else None
