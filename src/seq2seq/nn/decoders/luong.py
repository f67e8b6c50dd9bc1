"""Recurrence before attention; with input feeding, the attentional state enters the next step."""

import torch
from torch import Tensor

from seq2seq.nn.attention import Memory
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput, DecoderState, join_steps
from seq2seq.nn.state import RNNState


class LuongDecoder(Decoder):
    """Recurrence before attention (Luong et al. 2015, section 3.1, global attention).

    The recurrent layers read only the target, starting from the handed-over state; the top layer's outputs are the
    attention queries. The recurrence does not depend on attention, so each layer runs over all steps in one call.

    Example:
        >>> from seq2seq.nn.attention import GeneralAttention
        >>> attention = GeneralAttention(query_size=7, value_size=10)
        >>> decoder = LuongDecoder(vocabulary_size=9, embedding_size=8, hidden_size=7, num_layers=2, cell="gru",
        ...                        attention=attention, dropout=0.0, tied=False)
        >>> memory = attention.init_memory(torch.randn(2, 3, 10), mask=torch.ones(2, 3, dtype=torch.bool))
        >>> targets, handed_over = torch.ones(2, 4, dtype=torch.long), RNNState(torch.zeros(2, 1, 2, 7))
        >>> decoder(targets, memory, decoder.init_state(handed_over, memory)).logits.shape
        torch.Size([2, 4, 9])
    """

    @staticmethod
    def context_sizes(num_layers: int, context_size: int, attentional_size: int) -> list[int]:  # noqa: ARG004
        """No layer reads a context."""
        return [0] * num_layers

    def forward(self, targets: Tensor, memory: Memory, state: DecoderState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        outputs, states = self.run_layers(self.embed(targets, memory), state.rnn.layers())
        contexts, weights, attention = self.attend(outputs, memory, state.attention)
        logits = self.predict(self.attentional_state(contexts, outputs))
        return DecoderOutput(logits, DecoderState(RNNState.stack(states), attention), weights)


class InputFeedingDecoder(Decoder):
    """`LuongDecoder` with input feeding (Luong et al. 2015, section 3.3).

    The bottom layer also reads the previous attentional state, so the decoder knows where it attended before. Each
    step depends on the previous one, so the decoder loops over time.
    """

    @staticmethod
    def context_sizes(num_layers: int, context_size: int, attentional_size: int) -> list[int]:  # noqa: ARG004
        """The bottom layer reads the previous attentional state."""
        return [attentional_size] + [0] * (num_layers - 1)

    def init_state(self, state: RNNState, memory: Memory) -> DecoderState:
        """Return the handed-over state and a zero attentional state."""
        zeros = state.h.new_zeros(state.h.size(2), 1, self.attentional_layer.out_features)
        return super().init_state(state, memory)._replace(prev_attentional_state=zeros)

    def forward(self, targets: Tensor, memory: Memory, state: DecoderState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        rnn, attention, attentional_state = state
        assert attentional_state is not None  # see `init_state`
        states = rnn.layers()
        attentional_states, weights = [], []
        for embedded in self.embed(targets, memory).split(1, dim=1):  # (B, 1, E)
            output, states = self.run_layers(torch.cat([embedded, attentional_state], dim=-1), states)
            context, step_weights, attention = self.attend(output, memory, attention)
            attentional_state = self.attentional_state(context, output)
            attentional_states.append(attentional_state)
            weights.append(step_weights)
        logits = self.predict(torch.cat(attentional_states, dim=1))
        after = DecoderState(RNNState.stack(states), attention, attentional_state)
        return DecoderOutput(logits, after, join_steps(weights))


LuongDecoder.with_input_feeding = InputFeedingDecoder
