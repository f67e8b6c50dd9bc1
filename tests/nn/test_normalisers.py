"""Sparse attention weights: by eye, by their definition, and in their gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.nn.normalisers import NORMALISERS, entmax15

SCORES = st.lists(st.floats(-30, 30), min_size=1, max_size=12)
pytestmark = pytest.mark.usefixtures("float64")


def by_bisection(scores):
    """The weights by their definition: the threshold at which ``(scores / 2 - threshold)+ ** 2`` sums to one."""
    halves = scores / 2
    low, high = halves.max() - 1, halves.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if ((halves - middle).clamp(min=0) ** 2).sum() > 1 else (low, middle)
    return (halves - low).clamp(min=0) ** 2


@pytest.mark.parametrize(
    ("scores", "weights"),
    [
        ([7.0], [1]),
        ([3.0, 3.0], [0.5, 0.5]),
        ([2.0, 2.0, 0.0], [0.5, 0.5, 0]),  # 1 - 0.71 = 0.29 is the threshold, and half of 0 is below it
        ([2.0, 0.0], [1, 0]),  # the threshold is 0: (1 - 0) ** 2
        ([0.0, 100.0, -torch.inf], [0, 1, 0]),
    ],
)
def test_weights_that_can_be_computed_by_hand(scores, weights):
    torch.testing.assert_close(entmax15(torch.tensor(scores)), torch.tensor(weights, dtype=torch.float64))


@given(SCORES)
def test_weights_are_those_of_the_definition(scores):
    weights = entmax15(torch.tensor(scores))

    torch.testing.assert_close(weights, by_bisection(torch.tensor(scores)), rtol=0, atol=1e-6)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", NORMALISERS)
def test_padding_has_no_weight_and_changes_no_other(name):
    normalise = NORMALISERS[name]
    scores = torch.tensor([[0.3, -0.2, 0.1, -torch.inf, -torch.inf], [-50.0, -50.1, -49.9, -torch.inf, -torch.inf]])

    weights = normalise(scores)

    assert torch.equal(weights[:, 3:], torch.zeros(2, 2))
    torch.testing.assert_close(weights[:, :3], normalise(scores[:, :3]))


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    scores = (3 * torch.randn(4, 6)).requires_grad_()
    padded = torch.cat([torch.randn(2, 3), torch.full((2, 2), -1e9)], dim=1).requires_grad_()

    assert (entmax15(scores) == 0).any()
    assert torch.autograd.gradcheck(entmax15, scores)
    entmax15(padded).pow(2).sum().backward()
    assert padded.grad.isfinite().all()
    assert not padded.grad[:, 3:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_single(dtype):
    scores = torch.linspace(-2, 2, 300).to(dtype)

    weights = entmax15(scores)

    assert weights.dtype == dtype
    torch.testing.assert_close(weights.double(), entmax15(scores.double()), rtol=0, atol=2e-3)


def test_scores_that_are_not_numbers_give_weights_that_are_not():
    scores = torch.tensor([[1.0, torch.nan, 2.0], [-torch.inf, -torch.inf, -torch.inf], [0.0, 0.0, -torch.inf]])

    weights = entmax15(scores)

    assert weights[:2].isnan().any(-1).all()
    torch.testing.assert_close(weights[2], torch.tensor([0.5, 0.5, 0.0]))
