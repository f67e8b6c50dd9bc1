"""Attention first: the state before a step says where to look, and the step reads what was found."""

import torch
from torch import Tensor

from seq2seq.nn.decoders.decoder import Decoder, State
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.fast.steps import Steps, joined
from seq2seq.nn.memory import Memory, look
from seq2seq.nn.state import RNNState


class BahdanauDecoder(Decoder):
    """The top layer's previous state queries attention, and the context enters the bottom layer.

    Bahdanau et al. 2015, section 3.1 and appendix A.2.2, where there is one layer and a maxout layer predicts. Steps
    wait for each other: a loop. What the embeddings do to the bottom layer is computed for all steps at once, and so is
    the prediction.
    """

    def decode(
        self, targets: Tensor, packing: Packing, memory: Memory, state: RNNState
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read T tokens; see `Decoder.decode`."""
        memory = packing.sort(memory)
        steps = Steps(self.layers, self.embed(packing.pack(targets)), packing.sizes, state, self.dropout)
        contexts, outputs, all_weights = [], [], []
        for step, rows in enumerate(packing.sizes):
            memory = memory.first(rows)
            context, weights = look(self.attention, steps.top(rows).unsqueeze(1), memory)
            contexts.append(context.squeeze(1))
            outputs.append(steps.step(step, contexts[-1]))
            all_weights.append(weights)
        combined = self.combined(torch.cat(contexts), torch.cat(outputs))
        return combined, steps.state(), joined(all_weights, packing)
