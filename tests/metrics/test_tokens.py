"""Metrics over tokens, by hand, and as a collection that passes each what it needs."""

import math

import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.text import CharErrorRate

from seq2seq.data import PAD, UNK
from seq2seq.metrics import ExactMatch, SymbolErrorRate, TokenAccuracy, TokenLoss, TokenPerplexity
from seq2seq.metrics.tokens import closest


def edit_distance(one, other):
    """Levenshtein distance by its recursive definition."""
    if not one or not other:
        return len(one) + len(other)
    if one[0] == other[0]:
        return edit_distance(one[1:], other[1:])
    return 1 + min(edit_distance(one[1:], other), edit_distance(one, other[1:]), edit_distance(one[1:], other[1:]))


DECODED = [[4, 5, 6], [], [7, 7, 7, 7], [12]]
REFERENCES = [[4, 6], [5], [7, 7, 7, 7], [1, 2]]  # 12 is one token, not the two that its digits might seem
SINGLE = [[ids] for ids in REFERENCES]


def test_exact_match_and_symbol_error_rate_by_hand():
    exact_match, symbol_error_rate = ExactMatch(), SymbolErrorRate()

    exact_match.update(DECODED, SINGLE)
    symbol_error_rate.update(DECODED, SINGLE)

    edits = sum(edit_distance(one, other) for one, other in zip(DECODED, REFERENCES, strict=True))
    assert edits == 1 + 1 + 0 + 2
    assert exact_match.compute() == pytest.approx(1 / 4)
    assert symbol_error_rate.compute() == pytest.approx(edits / 9)


def test_any_of_several_references_counts_as_right_and_the_closest_counts_for_the_error_rate():
    references = [[[9], [4, 5, 6]], [[5, 5], [5]], [[7]], [[1, 2], [12, 3]]]
    exact_match, symbol_error_rate = ExactMatch(), SymbolErrorRate()

    exact_match.update(DECODED, references)
    symbol_error_rate.update(DECODED, references)

    assert exact_match.compute() == pytest.approx(1 / 4)
    assert symbol_error_rate.compute() == pytest.approx((0 + 1 + 3 + 1) / (3 + 1 + 1 + 2))


def make_collection():
    return MetricCollection(
        {"exact": ExactMatch(), "loss": TokenLoss(), "perplexity": TokenPerplexity(), "accuracy": TokenAccuracy(),
         "symbols": SymbolErrorRate(), "characters": CharErrorRate()},
        compute_groups=False,
    )  # fmt: skip


def test_batches_of_any_size_give_the_metrics_of_the_whole():
    torch.manual_seed(0)
    log_probs, labels = torch.randn(4, 6, 9).log_softmax(-1), torch.randint(4, 9, (4, 6))
    labels[0, 2:], labels[3, 5:] = PAD, PAD
    texts, targets = ["abc", "", "gggg", "l"], ["ac", "b", "gggg", "jk"]
    whole, pieces = make_collection(), make_collection()

    for collection, cuts in ((whole, [slice(0, 4)]), (pieces, [slice(0, 1), slice(1, 3), slice(3, 4)])):
        for cut in cuts:
            collection.update(
                preds=texts[cut], target=targets[cut], predicted_ids=DECODED[cut], reference_ids=SINGLE[cut],
                log_probs=log_probs[cut], labels=labels[cut],
            )  # fmt: skip

    assert {name: float(value) for name, value in pieces.compute().items()} == pytest.approx(
        {name: float(value) for name, value in whole.compute().items()}
    )
    assert float(whole.compute()["characters"]) == pytest.approx(4 / 9)


def test_teacher_forced_metrics_by_hand_and_without_padding():
    probabilities = torch.tensor([[[0.1, 0.0, 0.1, 0.0, 0.8], [0.25, 0.0, 0.25, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[4, 2, PAD]])
    metrics = [TokenLoss(), TokenPerplexity(), TokenAccuracy()]

    for metric in metrics:
        metric.update(probabilities.log(), labels)

    loss = -(math.log(0.8) + math.log(0.25)) / 2
    assert [float(metric.compute()) for metric in metrics] == pytest.approx([loss, math.exp(loss), 1 / 2])


def test_an_unknown_reference_token_is_a_mistake_even_if_it_is_predicted():
    logits = torch.zeros(1, 1, 6)
    logits[0, 0, UNK] = 9.0
    metric = TokenAccuracy()

    metric.update(logits.log_softmax(-1), torch.tensor([[UNK]]))

    assert metric.compute() == 0


@pytest.mark.parametrize(
    ("metric", "higher_is_better"),
    [(ExactMatch, True), (TokenAccuracy, True), (SymbolErrorRate, False), (TokenLoss, False), (TokenPerplexity, False)],
)
def test_a_metric_says_which_direction_is_better(metric, higher_is_better):
    assert metric().higher_is_better is higher_is_better


def test_the_closest_reference_is_the_one_with_the_fewest_edits():
    assert closest(["a", "b"], [["a"], ["x", "y"], ["a", "b", "c"], ["a", "c"]]) == ["a"]
