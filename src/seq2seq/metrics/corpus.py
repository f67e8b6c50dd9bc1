"""Metrics over a whole corpus and over tokens, whatever the batches were."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.text import WordErrorRate

from seq2seq.data.vocabulary import PAD, UNK


class CorpusMetrics(nn.Module):
    """What a model is judged by: two metrics of real decoding and three under teacher forcing.

    ============================== ===================================================================================
    exact_match                    share of rows decoded without a mistake
    symbol_error_rate              edit distance of decoded and reference tokens over the number of reference tokens
    loss_teacher_forced            mean negative log-probability of a reference token, without smoothing, in nats
    perplexity_teacher_forced      its exponential
    token_accuracy_teacher_forced  share of reference tokens, the end included, that are the most probable one
    ============================== ===================================================================================

    Under teacher forcing the model sees the reference so far, so these three flatter it. A reference token that is
    not in the vocabulary is always a mistake.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exact_match = MeanMetric()
        self.symbol_error_rate = WordErrorRate()
        self.loss = MeanMetric()
        self.token_accuracy = MeanMetric()

    def update_teacher_forced(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch of predictions under teacher forcing.

        Args:
            logits: ``(B, T, V)``.
            labels: Reference ids, the end included, padded with ``PAD``, ``(B, T)``.
        """
        real = labels != PAD
        losses = F.cross_entropy(logits[real].float(), labels[real], reduction="none")
        right = (logits[real].argmax(-1) == labels[real]) & (labels[real] != UNK)
        self.loss.update(losses)
        self.token_accuracy.update(right.float())

    def update_decoded(self, decoded: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> None:
        """Take in a batch of decoded rows and their references, as ids without begin, end and padding."""
        pairs = list(zip(decoded, references, strict=True))
        matches = torch.tensor([float(list(row) == list(reference)) for row, reference in pairs])
        self.exact_match.update(matches.to(self.exact_match.device))
        # The library's word error rate splits at spaces; ids written in digits hold none, so its words are our tokens.
        self.symbol_error_rate.update(
            [" ".join(map(str, row)) for row, _ in pairs], [" ".join(map(str, reference)) for _, reference in pairs]
        )

    def compute(self) -> dict[str, float]:
        """Return every metric over all that was taken in; rates are fractions of 1."""
        loss = float(self.loss.compute())
        return {
            "exact_match": float(self.exact_match.compute()),
            "symbol_error_rate": float(self.symbol_error_rate.compute()),
            "loss_teacher_forced": loss,
            "perplexity_teacher_forced": float(torch.tensor(loss).exp()),
            "token_accuracy_teacher_forced": float(self.token_accuracy.compute()),
        }

    def reset(self) -> None:
        """Forget all that was taken in."""
        for metric in (self.exact_match, self.symbol_error_rate, self.loss, self.token_accuracy):
            metric.reset()
