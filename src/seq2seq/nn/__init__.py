"""The network: PyTorch only, no files, no trainer, no configuration.

Start with ``seq2seq.py``; ``state.py`` knows the order of ``h_n``, ``rnn.py`` keeps padding out. ``fast/`` holds
optional CPU kernels for the same layers and can be skipped.

Axes, in every docstring of this project:

====  ==============================================================
B     batch: the sequences
S     source steps, padded to the longest sequence
T     target steps, likewise
V     vocabulary
E     embedding
H     hidden units of one direction
D     directions: 2 for a bidirectional encoder, else 1
L     layers
A     attention: the size in which queries and keys are compared
K     beam: hypotheses of one sequence
====  ==============================================================

A prime marks the decoder's: its state is ``(L', 1, B, H')``. Masks are True at real tokens and False at padding.
"""

from seq2seq.nn.attention import Memory
from seq2seq.nn.bridge import Bridge
from seq2seq.nn.decoders import Decoder, DecoderOutput, build_decoder
from seq2seq.nn.encoder import Encoder, EncoderOutput
from seq2seq.nn.seq2seq import Encoded, Seq2Seq, build_model
from seq2seq.nn.state import RNNState

__all__ = [
    "Bridge", "Decoder", "DecoderOutput", "Encoded", "Encoder", "EncoderOutput", "Memory", "RNNState", "Seq2Seq",
    "build_decoder", "build_model",
]  # fmt: skip
