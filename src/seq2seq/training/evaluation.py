"""Metrics and predictions of a model, in validation, test and `scripts/evaluate.py`."""

from collections.abc import Callable

from torch import Tensor
from torchmetrics import MetricCollection

from seq2seq.data import Batch, References, Tokenizer
from seq2seq.decoding import Ensemble, EnsembleEncoded, Search, to_lists

Decoded = tuple[list[list[int]], Tensor]
"""Decoded ids of each sequence, and log-probabilities under teacher forcing, ``(B, T, V)``."""


def decoder_of(ensemble: Ensemble, search: Search) -> Callable[[Batch, EnsembleEncoded], Decoded]:
    """Return what decodes an encoded batch freely, the best hypothesis of each sequence, and under teacher forcing."""

    def decode(batch: Batch, encoded: EnsembleEncoded) -> Decoded:
        return to_lists(search(ensemble, encoded).tokens[:, 0]), ensemble.decode(batch.inputs, encoded)[0]

    return decode


def update_metrics(
    metrics: MetricCollection, batch: Batch, decoded: Decoded, references: References, tokenizer: Tokenizer
) -> None:
    """Update each metric with the arguments that its ``update`` names.

    ============= =========================================================================================
    preds         decoded texts
    target        the first reference of each as text, so that metrics of ``torchmetrics.text`` fit
    references    for each of them, the texts of all its references
    predicted_ids decoded ids, without begin, end and padding
    reference_ids for each of them, the ids of all its references
    log_probs     log-probabilities under teacher forcing, ``(B, T, V)``
    labels        reference ids, the end included, padded, ``(B, T)``
    ============= =========================================================================================

    Args:
        metrics: Metrics to update.
        batch: A batch.
        decoded: The batch, decoded by `decoder_of`.
        references: What counts as right for its pairs.
        tokenizer: Tokenizer of the target.
    """
    predicted_ids, log_probs = decoded
    metrics.update(
        preds=[tokenizer.decode(ids) for ids in predicted_ids],
        target=[texts[0] for texts in references.texts],
        references=references.texts,
        predicted_ids=predicted_ids,
        reference_ids=references.ids,
        log_probs=log_probs,
        labels=batch.labels,
    )
