"""The bottom layer attends, and all layers above it read what it found."""

import torch
from torch import Tensor

from seq2seq.nn.attention import Memory
from seq2seq.nn.decoder import Decoder, DecoderOutput
from seq2seq.nn.state import RNNState


class GNMTDecoder(Decoder):
    """The bottom layer's output queries attention, and the context feeds all layers above (Wu et al. 2016, section 3).

    The upper layers so know where the decoder looks, as with input feeding, and still nothing waits for the step
    before: any number of steps is one call a layer. There the bottom layer also reads the context of the step before,
    which would bring the waiting back, and layers are joined by residual connections; both are left out.
    """

    def forward(self, targets: Tensor, memory: Memory, state: RNNState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        outputs, bottom = self.run(0, self.embed(targets), state)
        contexts, weights = self.attention(outputs, memory)
        after = [bottom]
        for layer in range(1, len(self.layers)):
            outputs, one = self.run(layer, torch.cat([outputs, contexts], dim=-1), state)
            after.append(one)
        return DecoderOutput(self.logits(self.combined(contexts, outputs)), RNNState.stack(after), weights)
