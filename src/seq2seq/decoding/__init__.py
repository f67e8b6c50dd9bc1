"""From an encoded batch to target ids: searches, ensembles and the inference loop."""

from seq2seq.decoding.beam import Beam
from seq2seq.decoding.build import build_search
from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded
from seq2seq.decoding.greedy import Greedy
from seq2seq.decoding.inference import Inference, Results
from seq2seq.decoding.output import Alignment, Search, SearchOutput, mask_special_tokens, to_lists
from seq2seq.decoding.sampling import Sampling

__all__ = [
    "Alignment", "Beam", "Ensemble", "EnsembleEncoded", "Greedy", "Inference", "Results", "Sampling", "Search",
    "SearchOutput", "build_search", "mask_special_tokens", "to_lists",
]  # fmt: skip
