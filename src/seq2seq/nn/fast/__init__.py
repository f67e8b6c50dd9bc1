"""Faster layers for training on a CPU: the same results and parameters as PyTorch's, from hand-written kernels.

Only `seq2seq.nn.rnn` uses this package; ``fast=false`` disables it.
"""

from torch import nn

from seq2seq.nn.fast.dropout import Dropout
from seq2seq.nn.fast.rnn import GRU, LSTM

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": GRU, "lstm": LSTM}
"""The layers of this package: config name to class."""

__all__ = ["CELLS", "GRU", "LSTM", "Dropout"]
