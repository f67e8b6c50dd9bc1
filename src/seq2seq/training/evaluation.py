"""Metrics and predictions of a model, in validation, test and `scripts/evaluate.py`."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torchmetrics import MetricCollection

from seq2seq.data import Batch, Tokenizer
from seq2seq.decoding import Ensemble, EnsembleEncoded, Search, to_lists

Decoded = tuple[list[list[int]], Tensor]
"""Decoded ids of each sequence, and log-probabilities under teacher forcing, ``(B, T, V)``."""


def decoder_of(ensemble: Ensemble, search: Search) -> Callable[[Batch, EnsembleEncoded], Decoded]:
    """Return what decodes an encoded batch freely, the best hypothesis of each sequence, and under teacher forcing."""

    def decode(batch: Batch, encoded: EnsembleEncoded) -> Decoded:
        return to_lists(search(ensemble, encoded).tokens[:, 0]), ensemble.decode(batch.inputs, encoded)[0]

    return decode


def update_metrics(
    metrics: MetricCollection, batch: Batch, decoded: Decoded, references: Sequence[str], tokenizer: Tokenizer
) -> None:
    """Update each metric with the arguments that its ``update`` names.

    ============= =========================================================================================
    preds         decoded texts
    target        their references as texts, one for each, so that metrics of ``torchmetrics.text`` fit
    predicted_ids decoded ids, without begin, end and padding
    reference_ids for each of them, the ids of all its references
    log_probs     log-probabilities under teacher forcing, ``(B, T, V)``
    labels        reference ids, the end included, padded, ``(B, T)``
    ============= =========================================================================================

    Args:
        metrics: Metrics to update.
        batch: A batch.
        decoded: The batch, decoded by `decoder_of`.
        references: Texts of its targets.
        tokenizer: Tokenizer of the target.
    """
    predicted_ids, log_probs = decoded
    metrics.update(
        preds=[tokenizer.decode(ids) for ids in predicted_ids],
        target=list(references),
        predicted_ids=predicted_ids,
        reference_ids=[[ids] for ids in batch.references()],
        log_probs=log_probs,
        labels=batch.labels,
    )
