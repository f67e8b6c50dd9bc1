"""The network: PyTorch only, no files, no trainer, no configuration.

Axes, in every docstring of this project:

====  ==============================================================
B     batch: the rows, one sentence each
S     source steps, padded to the longest row
T     target steps, padded likewise
V     vocabulary
E     embedding
H     hidden units of one direction
D     directions: 2 for a bidirectional encoder, else 1
L     layers
A     attention: the size in which queries and keys are compared
====  ==============================================================

A prime marks the decoder's: ``(L', 1, B, H')`` is its state. Masks are True at real tokens and False at padding.
"""

from seq2seq.nn.bridge import Bridge
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput
from seq2seq.nn.encoder import Encoder, EncoderOutput
from seq2seq.nn.memory import Memory
from seq2seq.nn.seq2seq import Seq2Seq, build_decoder, build_model
from seq2seq.nn.state import RNNState

__all__ = [
    "Bridge",
    "Decoder",
    "DecoderOutput",
    "Encoder",
    "EncoderOutput",
    "Memory",
    "RNNState",
    "Seq2Seq",
    "build_decoder",
    "build_model",
]
