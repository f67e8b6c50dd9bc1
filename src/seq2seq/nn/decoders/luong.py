"""Recurrence first, attention after; with input feeding, what attention found goes back into the recurrence."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from seq2seq.nn.decoders.decoder import Decoder, State
from seq2seq.nn.fast.packing import Packing, after_last
from seq2seq.nn.fast.steps import Steps, first, joined
from seq2seq.nn.memory import Memory, look
from seq2seq.nn.state import RNNState


class LuongDecoder(Decoder):
    """Recurrence first, attention after (Luong et al. 2015, section 3.1, global attention).

    The recurrent layers read the target alone, starting from the handed-over state; their outputs then attend. Nothing
    in the recurrence waits for the attention, so any number of steps is one call a layer, without a loop in Python.

    Example:
        >>> from seq2seq.nn.attention import GeneralAttention
        >>> attention = GeneralAttention(query_size=7, value_size=10)
        >>> decoder = LuongDecoder(vocabulary_size=9, embedding_size=8, hidden_size=7, cell="gru", extra_sizes=[0, 0],
        ...                        attention=attention, dropout=0.0, tied=False)  # of two layers
        >>> memory = attention.remember(torch.randn(2, 3, 10), mask=torch.ones(2, 3, dtype=torch.bool))
        >>> targets, state = torch.ones(2, 4, dtype=torch.long), RNNState(torch.zeros(2, 1, 2, 7))
        >>> decoder(targets, memory, state).logits.shape
        torch.Size([2, 4, 9])
    """

    def decode(
        self, targets: Tensor, packing: Packing, memory: Memory, state: RNNState
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read T tokens; see `Decoder.decode`."""
        outputs, after = self.embed(packing.pack(targets)), []
        for layer in range(len(self.layers)):
            outputs, one = self.run(layer, outputs, packing, state)
            after.append(one)
        contexts, weights = self.attend(outputs, packing, memory)
        return self.combined(contexts, outputs), RNNState.stack(after), weights


class FedState(NamedTuple):
    """The state of a decoder that is fed what it combined last.

    Attributes:
        rnn: Of the layers, ``(L', 1, B, H')``.
        fed: What predicted the last token; zero before the first, ``(B, H')``, or E if tied.
    """

    rnn: RNNState
    fed: Tensor

    def select(self, rows: Tensor) -> Self:
        """Return the state of the given rows of the batch, ``(B')``."""
        return self._replace(rnn=self.rnn.select(rows), fed=self.fed[rows])


class InputFeedingDecoder(Decoder):
    """`LuongDecoder` with input feeding (Luong et al. 2015, section 3.3).

    The bottom layer also reads what predicted the token before, so the decoder knows where it has looked, and steps
    wait for each other: a loop. What the embeddings do to the bottom layer is computed for all steps at once.
    """

    def start(self, state: RNNState) -> FedState:
        """Return the handed-over state, and nothing that was combined yet."""
        return FedState(state, state.h.new_zeros(state.h.size(2), self.combine.out_features))

    def decode(
        self, targets: Tensor, packing: Packing, memory: Memory, state: FedState
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read T tokens; see `Decoder.decode`."""
        memory = packing.sort(memory)
        steps = Steps(self.layers, self.embed(packing.pack(targets)), packing.sizes, state.rnn, self.dropout)
        fed, all_weights = [state.fed], []
        for step, rows in enumerate(packing.sizes):
            memory = memory.first(rows)
            output = steps.step(step, first(fed[-1], rows))
            context, weights = look(self.attention, output.unsqueeze(1), memory)
            fed.append(self.combined(context.squeeze(1), output))
            all_weights.append(weights)
        after = FedState(steps.state(), after_last(fed[1:]))
        return torch.cat(fed[1:]), after, joined(all_weights, packing)
