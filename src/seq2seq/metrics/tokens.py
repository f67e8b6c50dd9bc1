"""Metrics over tokens: of free-running decoding, and under teacher forcing.

All are updated by keyword, in a ``torchmetrics.MetricCollection`` that passes each metric the arguments that its
``update`` names; see `seq2seq.training.evaluation.Evaluation.validation_step` for all of them.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.text import WordErrorRate

from seq2seq.data.vocabulary import PAD, UNK


class ExactMatch(MeanMetric):
    """Fraction of sequences that equal one of their references, token by token.

    Example:
        >>> metric = ExactMatch()
        >>> metric.update(predicted_ids=[[4, 5], [6]], reference_ids=[[[4, 5]], [[7], [6, 6]]])
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True

    def update(self, predicted_ids: Sequence[list[int]], reference_ids: Sequence[Sequence[list[int]]]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a batch of predictions and the references of each, as ids without begin, end and padding."""
        matches = [float(ids in references) for ids, references in zip(predicted_ids, reference_ids, strict=True)]
        super().update(torch.tensor(matches, device=self.device))


class SequenceErrorRate(ExactMatch):
    """Fraction of sequences that equal none of their references; for single words, this is the word error rate.

    Example:
        >>> metric = SequenceErrorRate()
        >>> metric.update(predicted_ids=[[4, 5], [6]], reference_ids=[[[4, 5]], [[7], [6, 6]]])
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the fraction among all sequences."""
        return 1 - super().compute()


class SymbolErrorRate(WordErrorRate):
    """Edit distance in tokens over the number of reference tokens; of several references, the closest counts.

    Example:
        >>> metric = SymbolErrorRate()
        >>> metric.update(predicted_ids=[[4, 5], [6]], reference_ids=[[[4]], [[7, 8, 9], [6, 7, 8]]])
        >>> metric.compute()  # one and two edits, one and three tokens
        tensor(0.7500)
    """

    higher_is_better = False

    def update(self, predicted_ids: Sequence[list[int]], reference_ids: Sequence[Sequence[list[int]]]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a batch of predictions and the references of each, as ids without begin, end and padding."""
        # The library splits words at spaces. Ids in digits contain none, so its words are our tokens.
        references = [closest(*pair) for pair in zip(predicted_ids, reference_ids, strict=True)]
        super().update([*map(as_words, predicted_ids)], [*map(as_words, references)])


def as_words(ids: Sequence[int]) -> str:
    """Return ids as a text with a word for each."""
    return " ".join(map(str, ids))


Token = TypeVar("Token", bound=Hashable)


def closest(prediction: Sequence[Token], references: Iterable[list[Token]]) -> list[Token]:
    """Return the reference with the fewest edits, in tokens."""
    return min(references, key=lambda reference: Levenshtein.distance(prediction, reference))


class TokenLoss(MeanMetric):
    """Mean negative log-probability of a reference token under teacher forcing, without smoothing, in nats."""

    higher_is_better = False

    def update(self, log_probs: Tensor, labels: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a batch.

        Args:
            log_probs: Log-probabilities of each token, ``(B, T, V)``.
            labels: Reference ids, the end included, padded with ``PAD``, ``(B, T)``.
        """
        real = labels != PAD
        super().update(F.nll_loss(log_probs[real].float(), labels[real], reduction="none"))


class TokenPerplexity(TokenLoss):
    """The exponential of `TokenLoss`."""

    def compute(self) -> Tensor:
        """Return the perplexity of all tokens."""
        return super().compute().exp()


class TokenAccuracy(MeanMetric):
    """Fraction of reference tokens, the end included, that are the most probable one under teacher forcing.

    A reference token that is not in the vocabulary always counts as a mistake.
    """

    higher_is_better = True

    def update(self, log_probs: Tensor, labels: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a batch; see `TokenLoss.update`."""
        real = labels != PAD
        log_probs, labels = log_probs[real], labels[real]
        super().update(((log_probs.argmax(-1) == labels) & (labels != UNK)).float())
