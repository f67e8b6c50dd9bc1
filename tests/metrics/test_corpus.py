"""Metrics: over the whole corpus and over tokens, by hand."""

import math

import pytest
import torch

from seq2seq.data import PAD, UNK
from seq2seq.metrics.corpus import CorpusMetrics


def edit_distance(one, other):
    """Levenshtein distance by its recursive definition."""
    if not one or not other:
        return len(one) + len(other)
    if one[0] == other[0]:
        return edit_distance(one[1:], other[1:])
    return 1 + min(edit_distance(one[1:], other), edit_distance(one, other[1:]), edit_distance(one[1:], other[1:]))


DECODED = [[4, 5, 6], [], [7, 7, 7, 7], [12]]
REFERENCES = [[4, 6], [5], [7, 7, 7, 7], [1, 2]]  # 12 is one token, not the two that its digits might seem


def test_exact_match_and_symbol_error_rate_by_hand():
    metrics = CorpusMetrics()

    metrics.update_decoded(DECODED, REFERENCES)

    edits = sum(edit_distance(one, other) for one, other in zip(DECODED, REFERENCES, strict=True))
    assert edits == 1 + 1 + 0 + 2
    assert metrics.exact_match.compute() == pytest.approx(1 / 4)
    assert metrics.symbol_error_rate.compute() == pytest.approx(edits / 9)


def test_batches_of_any_size_give_the_metrics_of_the_whole():
    torch.manual_seed(0)
    log_probs, labels = torch.randn(5, 6, 9).log_softmax(-1), torch.randint(4, 9, (5, 6))
    labels[0, 2:], labels[3, 5:] = PAD, PAD
    whole, pieces = CorpusMetrics(), CorpusMetrics()

    whole.update_teacher_forced(log_probs, labels)
    whole.update_decoded(DECODED, REFERENCES)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        pieces.update_teacher_forced(log_probs[rows], labels[rows])
    for rows in (slice(0, 3), slice(3, 4)):
        pieces.update_decoded(DECODED[rows], REFERENCES[rows])

    assert pieces.compute() == pytest.approx(whole.compute())


def test_teacher_forced_metrics_by_hand_and_without_padding():
    metrics = CorpusMetrics()
    probabilities = torch.tensor([[[0.1, 0.0, 0.1, 0.0, 0.8], [0.25, 0.0, 0.25, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[4, 2, PAD]])

    metrics.update_teacher_forced(probabilities.log(), labels)
    metrics.update_decoded([[4]], [[4]])

    result = metrics.compute()
    loss = -(math.log(0.8) + math.log(0.25)) / 2
    assert result["loss_teacher_forced"] == pytest.approx(loss)
    assert result["perplexity_teacher_forced"] == pytest.approx(math.exp(loss))
    assert result["token_accuracy_teacher_forced"] == pytest.approx(1 / 2)


def test_an_unknown_reference_token_is_a_mistake_even_if_it_is_predicted():
    metrics = CorpusMetrics()
    logits = torch.zeros(1, 1, 6)
    logits[0, 0, UNK] = 9.0

    metrics.update_teacher_forced(logits.log_softmax(-1), torch.tensor([[UNK]]))

    assert metrics.token_accuracy.compute() == 0


def test_reset_forgets():
    metrics = CorpusMetrics()
    metrics.update_decoded([[4]], [[5]])
    metrics.reset()

    metrics.update_decoded([[4]], [[4]])

    assert metrics.exact_match.compute() == 1
    assert metrics.symbol_error_rate.compute() == 0
