"""Metrics and predictions of a model, in validation and in `scripts/evaluate.py`."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from seq2seq.data import Batch
from seq2seq.decoding import Ensemble, EnsembleEncoded, Search, SearchOutput, infer, to_lists
from seq2seq.metrics import CorpusMetrics


def evaluate_batches(
    ensemble: Ensemble, search: Search, batches: Iterable[Batch], device: torch.device, metrics: CorpusMetrics
) -> Iterator[tuple[Batch, list[list[int]]]]:
    """Decode batches freely and predict them under teacher forcing; update the metrics with both.

    Args:
        ensemble: In evaluation mode, on ``device``.
        search: How to decode; the best hypothesis counts.
        batches: Batches with references.
        device: Where to compute.
        metrics: Metrics to update.

    Yields:
        Each batch, and the decoded ids of its sequences.
    """

    def compute(batch: Batch, encoded: EnsembleEncoded) -> tuple[SearchOutput, Tensor]:
        return search(ensemble, encoded), ensemble.decode(batch.inputs, encoded)[0]

    for batch, (found, log_probs) in infer(ensemble, batches, device, compute):
        decoded = to_lists(found.tokens[:, 0])
        metrics.update_teacher_forced(log_probs, batch.labels)
        metrics.update_decoded(decoded, batch.references())
        yield batch, decoded
