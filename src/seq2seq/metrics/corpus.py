"""Metrics over a whole corpus and over tokens, regardless of how it is batched."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.text import WordErrorRate

from seq2seq.data.vocabulary import PAD, UNK

MONITOR = "val/exact_match"
"""The metric that selects the best checkpoint and stops training early: exact match of free-running decoding."""


class CorpusMetrics(nn.Module):
    """Two metrics of free-running decoding and three under teacher forcing.

    ============================== ===================================================================================
    exact_match                    fraction of sequences decoded without a mistake
    symbol_error_rate              edit distance of decoded and reference tokens over the number of reference tokens
    loss_teacher_forced            mean negative log-probability of a reference token, without smoothing, in nats
    perplexity_teacher_forced      its exponential
    token_accuracy_teacher_forced  fraction of reference tokens, the end included, that are the most probable one
    ============================== ===================================================================================

    Under teacher forcing the model sees the reference so far, so these three are too optimistic. A reference token that
    is not in the vocabulary always counts as a mistake.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exact_match = MeanMetric()
        self.symbol_error_rate = WordErrorRate()
        self.loss = MeanMetric()
        self.token_accuracy = MeanMetric()

    def update_teacher_forced(self, log_probs: Tensor, labels: Tensor) -> None:
        """Add a batch of predictions under teacher forcing.

        Args:
            log_probs: Of each token, ``(B, T, V)``.
            labels: Reference ids, the end included, padded with ``PAD``, ``(B, T)``.
        """
        real = labels != PAD
        log_probs, labels = log_probs[real].float(), labels[real]
        self.loss.update(F.nll_loss(log_probs, labels, reduction="none"))
        self.token_accuracy.update(((log_probs.argmax(-1) == labels) & (labels != UNK)).float())

    def update_decoded(self, decoded: Sequence[list[int]], references: Sequence[list[int]]) -> None:
        """Add a batch of decoded sequences and their references, as ids without begin, end and padding."""
        matches = [float(ids == reference) for ids, reference in zip(decoded, references, strict=True)]
        self.exact_match.update(torch.tensor(matches, device=self.exact_match.device))
        # The library's word error rate splits at spaces; ids written in digits hold none, so its words are our tokens.
        self.symbol_error_rate.update(
            [" ".join(map(str, ids)) for ids in decoded], [" ".join(map(str, ids)) for ids in references]
        )

    def compute(self) -> dict[str, float]:
        """Return every metric over all batches; rates are fractions of 1."""
        loss = self.loss.compute()
        return {
            "exact_match": float(self.exact_match.compute()),
            "symbol_error_rate": float(self.symbol_error_rate.compute()),
            "loss_teacher_forced": float(loss),
            "perplexity_teacher_forced": float(loss.exp()),
            "token_accuracy_teacher_forced": float(self.token_accuracy.compute()),
        }

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.exact_match, self.symbol_error_rate, self.loss, self.token_accuracy):
            metric.reset()
