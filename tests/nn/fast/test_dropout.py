"""Dropout drops as often as it says, each unit by itself, and keeps the mean."""

import pytest
import torch
from torch.nn import functional as F

from seq2seq.nn.fast.dropout import Dropout, dropout

UNITS = 400_000
SIGMAS = 5  # a false alarm once in some two million draws


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_units_are_dropped_with_the_given_probability_and_what_is_kept_makes_up_for_it(p: float) -> None:
    torch.manual_seed(0)
    result = dropout(torch.ones(UNITS), p, training=True)

    error = SIGMAS * (p * (1 - p) / UNITS) ** 0.5
    assert (result == 0).double().mean().item() == pytest.approx(p, abs=error)
    assert result.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    assert result.double().mean().item() == pytest.approx(1, abs=error / (1 - p))


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8])
def test_units_that_share_a_random_number_are_dropped_independently(distance: int) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(UNITS), 0.3, training=True) == 0

    both = (dropped[distance:] & dropped[:-distance]).double().mean().item()

    assert both == pytest.approx(0.09, abs=SIGMAS * (0.09 * 0.91 * 1.5 / UNITS) ** 0.5)


def test_the_gradient_flows_where_units_are_kept() -> None:
    units = torch.randn(3, 5, 7, requires_grad=True)
    result = Dropout(0.4)(units)
    (gradient,) = torch.autograd.grad(result.sum(), units)

    assert result.shape == units.shape
    torch.testing.assert_close(result, units * gradient)


def test_a_seed_gives_the_same_units() -> None:
    torch.manual_seed(3)
    first = dropout(torch.ones(101), 0.5, training=True)
    other = dropout(torch.ones(101), 0.5, training=True)
    torch.manual_seed(3)

    assert torch.equal(dropout(torch.ones(101), 0.5, training=True), first)
    assert not torch.equal(other, first)


def test_a_probability_of_two_in_65536_is_not_lost() -> None:
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(5 * UNITS), 2 / 65536, training=True) == 0).sum().item()

    assert dropped == pytest.approx(5 * UNITS * 2 / 65536, abs=SIGMAS * (5 * UNITS * 2 / 65536) ** 0.5)


def test_the_result_is_in_the_precision_of_the_units() -> None:
    assert dropout(torch.ones(3, dtype=torch.bfloat16), 0.5, training=True).dtype == torch.bfloat16


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.5, False)])
def test_all_none_and_testing_are_those_of_pytorch(p: float, training: bool) -> None:
    units = torch.randn(10)

    assert torch.equal(dropout(units, p, training), F.dropout(units, p, training))
