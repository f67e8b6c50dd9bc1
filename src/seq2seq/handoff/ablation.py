"""The handed-over state taken away from a trained model, to see how much it leans on it."""

import torch
from torch import nn

from seq2seq.errors import check_choice
from seq2seq.nn.state import RNNState

KEPT = "kept"

STATES = (KEPT, "zeroed", "shuffled")
"""What may be done to the state on its way to the decoder (``state`` of `evaluate.py`)."""


class AlteredBridge(nn.Module):
    """A bridge whose result is taken away.

    Args:
        bridge: The model's own.
        state: ``zeroed``, or ``shuffled``: every row gets the state of another row of its batch, chosen at random.
    """

    def __init__(self, bridge: nn.Module, state: str) -> None:
        super().__init__()
        self.bridge = bridge
        self.shuffled = check_choice("state", state, STATES) == "shuffled"
        self.generator = torch.Generator().manual_seed(0)
        self.alone = 0
        """Rows that were alone in their batch, so that there was no other row's state to give them."""

    def forward(self, state: RNNState) -> RNNState:
        """Return the altered initial state of the decoder, ``(L', 1, B, H')``."""
        handed = self.bridge(state)
        if not self.shuffled:
            return RNNState(*(torch.zeros_like(part) for part in handed if part is not None))
        rows = torch.randperm(handed.h.size(2), generator=self.generator)
        self.alone += len(rows) == 1
        others = torch.empty_like(rows)
        others[rows] = rows.roll(1)  # one round through all rows, so that none keeps its own
        return handed.select(others.to(handed.h.device))
