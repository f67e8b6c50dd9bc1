"""Metrics over a whole corpus."""

from seq2seq.metrics.corpus import CorpusMetrics

__all__ = ["CorpusMetrics"]
