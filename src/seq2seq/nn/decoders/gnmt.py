"""The bottom layer attends, and all layers above it read what it found."""

import torch
from torch import Tensor

from seq2seq.nn.decoders.decoder import Decoder, State
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.memory import Memory
from seq2seq.nn.state import RNNState


class GNMTDecoder(Decoder):
    """The bottom layer's output queries attention, and the context feeds all layers above (Wu et al. 2016, section 3).

    The upper layers so know where the decoder looks, as with input feeding, and still nothing waits for the step
    before: any number of steps is one call a layer. There the bottom layer also reads the context of the step before,
    which would bring the waiting back, and layers are joined by residual connections; both are left out.
    """

    def decode(
        self, targets: Tensor, packing: Packing, memory: Memory, state: RNNState
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read T tokens; see `Decoder.decode`."""
        outputs, bottom = self.run(0, self.embed(packing.pack(targets)), packing, state)
        contexts, weights = self.attend(outputs, packing, memory)
        after = [bottom]
        for layer in range(1, len(self.layers)):
            outputs, one = self.run(layer, torch.cat([outputs, contexts], dim=-1), packing, state)
            after.append(one)
        return self.combined(contexts, outputs), RNNState.stack(after), weights
