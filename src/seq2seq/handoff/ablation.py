"""Take the handed-over state away from a trained model, to see how much it depends on it."""

import torch
from torch import nn

from seq2seq.nn.state import RNNState
from seq2seq.settings import choose

KEPT = "kept"

STATES = (KEPT, "zeroed", "shuffled")
"""What can happen to the state on its way to the decoder (``state`` of `evaluate.py`)."""


class AlteredBridge(nn.Module):
    """A bridge whose result is ``zeroed`` or ``shuffled``: each sequence gets the state of another one of its batch."""

    def __init__(self, bridge: nn.Module, state: str) -> None:
        super().__init__()
        self.bridge = bridge
        self.shuffled = choose("state", state, dict.fromkeys(STATES, state)) == "shuffled"
        self.generator = torch.Generator().manual_seed(0)
        self.alone = 0
        """Number of sequences that were alone in their batch and kept their own state."""

    def forward(self, state: RNNState) -> RNNState:
        """Return the altered initial state of the decoder, ``(L', 1, B, H')``."""
        handed = self.bridge(state)
        if not self.shuffled:
            return RNNState(*(torch.zeros_like(part) for part in handed if part is not None))
        order = torch.randperm(handed.h.size(2), generator=self.generator)
        self.alone += len(order) == 1
        others = torch.empty_like(order)
        others[order] = order.roll(1)  # one cycle through all sequences, so that none keeps its own
        return handed.select(others.to(handed.h.device))
