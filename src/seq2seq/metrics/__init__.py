"""Metrics of this project; any ``torchmetrics.Metric`` can be used beside them (``configs/metrics``)."""

from seq2seq.metrics.tokens import ExactMatch, SymbolErrorRate, TokenAccuracy, TokenLoss, TokenPerplexity

__all__ = ["ExactMatch", "SymbolErrorRate", "TokenAccuracy", "TokenLoss", "TokenPerplexity"]
