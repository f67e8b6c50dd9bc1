"""Metrics of this project; any ``torchmetrics.Metric`` can be used beside them (``configs/metrics``)."""

from seq2seq.metrics.text import BLEU, ChrF
from seq2seq.metrics.tokens import (
    ExactMatch,
    SequenceErrorRate,
    SymbolErrorRate,
    TokenAccuracy,
    TokenLoss,
    TokenPerplexity,
)

__all__ = [
    "BLEU", "ChrF", "ExactMatch", "SequenceErrorRate", "SymbolErrorRate", "TokenAccuracy", "TokenLoss",
    "TokenPerplexity",
]  # fmt: skip
