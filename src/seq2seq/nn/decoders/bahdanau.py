"""Attention before recurrence: the previous state is the query, and the recurrent step reads the context."""

import torch
from torch import Tensor

from seq2seq.nn.attention import Memory
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput, DecoderState, join_steps
from seq2seq.nn.state import RNNState


class BahdanauDecoder(Decoder):
    """The top layer's previous state is the attention query, and the context enters the bottom layer.

    Bahdanau et al. 2015, section 3.1 and appendix A.2.2; there, the decoder has one layer and predicts with a maxout
    layer. Each step depends on the previous one, so the decoder loops over time.
    """

    @staticmethod
    def context_sizes(num_layers: int, context_size: int, attentional_size: int) -> list[int]:  # noqa: ARG004
        """The bottom layer reads the context."""
        return [context_size] + [0] * (num_layers - 1)

    def forward(self, targets: Tensor, memory: Memory, state: DecoderState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        states, attention = state.rnn.layers(), state.attention
        contexts, outputs, weights = [], [], []
        for embedded in self.embed(targets, memory).split(1, dim=1):  # (B, 1, E)
            query = states[-1].h[0, 0].unsqueeze(1)  # (B, 1, H')
            context, step_weights, attention = self.attend(query, memory, attention)
            output, states = self.run_layers(torch.cat([embedded, context], dim=-1), states)
            contexts.append(context)
            outputs.append(output)
            weights.append(step_weights)
        attentional_states = self.attentional_state(torch.cat(contexts, dim=1), torch.cat(outputs, dim=1))
        after = DecoderState(RNNState.stack(states), attention)
        return DecoderOutput(self.predict(attentional_states), after, join_steps(weights))
