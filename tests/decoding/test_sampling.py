"""Sampling: tokens are drawn as often as the model says, and a seed repeats them."""

import pytest
import torch
from conftest import make_model
from teacher_forcing import teacher_forced

from seq2seq.decoding import Ensemble, Greedy, Sampling, to_lists
from seq2seq.decoding.output import SPECIAL_TOKENS

B, S, V, N = 16, 7, 11, 3
PROBS = [0.5, 0.25, 0.15, 0.07, 0.03]
DRAWS = 20_000
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def ensemble():
    return Ensemble([make_model(seed=25, scale=3, cell="lstm", target_size=V)])


def make_source():
    torch.manual_seed(1)
    return torch.randint(0, 10, (B, S)), torch.randint(1, S + 1, (B,))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PROBS),
        ({"temperature": 0.5}, [prob**2 / 0.3408 for prob in PROBS]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"top_p": 0.74}, [2 / 3, 1 / 3, 0, 0, 0]),  # the fewest that have 0.74 together
        ({"top_p": 0.76}, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),
        ({"temperature": 0.01}, [1, 0, 0, 0, 0]),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(options, expected):
    # Each of up to five frequencies of 20,000 draws lies within 4.5 standard deviations of its probability but for
    # 7 in a million: a false alarm in fewer than 3 of 10,000 choices of the seed, which is fixed here.
    order = torch.tensor([3, 0, 4, 2, 1])
    log_probs, expected = torch.tensor(PROBS)[order].log(), torch.tensor(expected)[order]

    drawn = Sampling(max_length=9, **options).draw(log_probs.expand(DRAWS, -1))

    frequencies = drawn.bincount(minlength=5) / DRAWS
    assert ((frequencies - expected).abs() <= 4.5 * (expected * (1 - expected) / DRAWS).sqrt() + 1e-12).all()


def test_what_is_drawn_depends_on_the_seed_alone(ensemble):
    encoded = ensemble.encode(*make_source())

    one, again, other = (Sampling(6, N, seed=seed)(ensemble, encoded) for seed in (1, 1, 2))

    assert torch.equal(one.tokens, again.tokens)
    assert torch.equal(one.log_probs, again.log_probs)
    assert to_lists(one.tokens.flatten(0, 1)) != to_lists(other.tokens.flatten(0, 1))
    assert all(set(tokens).isdisjoint(SPECIAL_TOKENS) for tokens in to_lists(one.tokens.flatten(0, 1)))


def test_the_generator_goes_on_from_batch_to_batch(ensemble):
    sampling, encoded = Sampling(6, N, seed=1), ensemble.encode(*make_source())

    first, second = (to_lists(sampling(ensemble, encoded).tokens.flatten(0, 1)) for _ in range(2))

    assert first != second


def test_drawing_from_the_most_probable_token_alone_is_greedy_search_for_every_hypothesis(ensemble):
    encoded = ensemble.encode(*make_source())

    drawn, best = Sampling(6, N, top_k=1)(ensemble, encoded), Greedy(6)(ensemble, encoded)

    assert torch.equal(drawn.tokens, best.tokens.expand(-1, N, -1))
    torch.testing.assert_close(drawn.log_probs, best.log_probs.expand(-1, N))


@torch.no_grad()
@pytest.mark.parametrize("max_length", [1, 6])
@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"top_k": 4}, {"top_p": 0.8}], ids=str)
def test_log_probabilities_are_those_of_teacher_forcing(options, max_length):
    ensemble = Ensemble([make_model(seed=seed, target_size=V) for seed in (5, 6)])
    source, lengths = make_source()

    found = Sampling(max_length, N, **options)(ensemble, ensemble.encode(source, lengths))

    assert found.tokens.shape[:2] == (B, N)
    for place in range(N):
        hypotheses = to_lists(found.tokens[:, place])
        expected = teacher_forced(ensemble, source, lengths, hypotheses, max_length)
        torch.testing.assert_close(found.log_probs[:, place], expected)
    assert torch.equal(found.scores, found.log_probs)
