"""The bottom layer attends, and the context feeds all layers above it."""

import torch
from torch import Tensor

from seq2seq.nn.attention import Memory
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput, DecoderState
from seq2seq.nn.state import RNNState


class GNMTDecoder(Decoder):
    """The bottom layer's output is the query, and the context feeds all layers above (Wu et al. 2016, section 3).

    As with input feeding, the upper layers know where the decoder attends, but there is no loop over time: each layer
    runs over all steps in one call. Unlike in the paper, the bottom layer does not read the previous context (that
    would need a loop over time), and there are no residual connections.
    With one layer, nothing would read the context, as in `LuongDecoder`.
    """

    min_layers = 2

    @staticmethod
    def context_sizes(num_layers: int, context_size: int, attentional_size: int) -> list[int]:  # noqa: ARG004
        """All layers but the bottom one read the context."""
        return [0] + [context_size] * (num_layers - 1)

    def forward(self, targets: Tensor, memory: Memory, state: DecoderState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        bottom, *upper = state.rnn.layers()
        outputs, bottom = self.run_layer(0, self.embed(targets, memory), bottom)
        contexts, weights, attention = self.attend(outputs, memory, state.attention)
        states = [bottom]
        for number, layer_state in enumerate(upper, start=1):
            outputs, after = self.run_layer(number, torch.cat([outputs, contexts], dim=-1), layer_state)
            states.append(after)
        logits = self.predict(self.attentional_state(contexts, outputs))
        return DecoderOutput(logits, DecoderState(RNNState.stack(states), attention), weights)
