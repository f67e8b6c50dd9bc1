"""Attention first: the state before a step says where to look, and the step reads what was found."""

import torch
from torch import Tensor

from seq2seq.nn.attention import Memory
from seq2seq.nn.decoder import Decoder, DecoderOutput
from seq2seq.nn.state import RNNState
from seq2seq.nn.steps import Steps


class BahdanauDecoder(Decoder):
    """The top layer's previous state queries attention, and the context enters the bottom layer.

    Bahdanau et al. 2015, section 3.1 and appendix A.2.2, where there is one layer and a maxout layer predicts. Steps
    wait for each other: a loop. What the embeddings do to the bottom layer is computed for all steps at once, and so is
    the prediction.
    """

    def forward(self, targets: Tensor, memory: Memory, state: RNNState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        steps = Steps(self.layers, self.embed(targets), state, self.dropout)
        contexts, outputs, all_weights = [], [], []
        for step in range(targets.size(1)):
            context, weights = self.attention(steps.top().unsqueeze(1), memory)
            outputs.append(steps.step(step, context.squeeze(1)))
            contexts.append(context)
            all_weights.append(weights)
        combined = self.combined(torch.cat(contexts, dim=1), torch.stack(outputs, dim=1))
        weights = None if all_weights[0] is None else torch.cat(all_weights, dim=1)
        return DecoderOutput(self.logits(combined), steps.state(), weights)
