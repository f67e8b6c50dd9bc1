"""The model, in plain PyTorch: no files, no trainer, no configuration.

Start with ``seq2seq.py``; ``state.py`` defines the order of ``h_n``, and ``rnn.py`` keeps padding out of the
recurrence. ``fast/`` holds optional CPU kernels for the same layers and can be skipped.

Axes, in every docstring of this project:

| | |
|---|---|
| B | batch size: number of sequences |
| S | source steps, padded to the longest sequence; in a memory, S + F: the features follow |
| F | features of a sequence, padded to the largest number |
| T | target steps, padded likewise |
| V | vocabulary size |
| E | embedding size |
| H | hidden size of one direction |
| D | number of directions: 2 for a bidirectional encoder, else 1 |
| L | number of layers |
| A | attention size: the size of queries and keys |
| K | beam size: hypotheses per sequence |
| C | size of a context, what attention returns |

A prime marks the decoder's sizes: its state is ``(L', 1, B, H')``. Masks are True at real tokens and False at padding.
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
