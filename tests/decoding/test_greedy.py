"""Greedy search: the same as one sequence at a time, as far as the end of each."""

import pytest
import torch
from conftest import KINDS, make_model
from teacher_forcing import teacher_forced

from seq2seq.data import BOS, EOS, PAD, UNK
from seq2seq.decoding import Ensemble, Greedy, to_lists

B, S, V = 16, 7, 11
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def model():
    return make_model(seed=25, scale=3, cell="lstm", target_size=V)


def make_source():
    torch.manual_seed(1)
    return torch.randint(0, 10, (B, S)), torch.randint(1, S + 1, (B,))


def search(models, max_length):
    ensemble = Ensemble(models)
    return Greedy(max_length)(ensemble, ensemble.encode(*make_source()))


def one_by_one(models, source, length, max_length):
    """A sequence alone, with the whole prefix decoded anew at every step."""
    tokens = [BOS]
    while len(tokens) <= max_length:
        inputs = source[:, :length], torch.tensor([length]), torch.tensor([tokens])
        probs = torch.stack([model(*inputs).logits[0, -1].softmax(-1) for model in models]).mean(0)
        probs[[PAD, BOS, UNK]] = 0
        best = int(probs.argmax())
        if best == EOS:
            break
        tokens.append(best)
    return tokens[1:]


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("max_length", [1, 4, 12])
def test_a_batch_gives_what_each_sequence_gives_alone(model, count, max_length):
    models = [model, make_model(seed=1, scale=3, target_size=V, decoder=KINDS["bahdanau"])][:count]
    source, lengths = make_source()

    found = to_lists(search(models, max_length).tokens[:, 0])

    alone = [one_by_one(models, source[i : i + 1], int(lengths[i]), max_length) for i in range(B)]
    assert found == alone
    assert max_length < 12 or len({len(tokens) for tokens in found}) > 3  # they leave the batch at many steps


@torch.no_grad()
@pytest.mark.parametrize("max_length", [1, 4, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_teacher_forcing(kind, max_length):
    models = [make_model(seed=seed, scale=3, target_size=V, decoder=KINDS[kind]) for seed in (5, 6)]

    found = search(models, max_length)

    expected = teacher_forced(Ensemble(models), *make_source(), to_lists(found.tokens[:, 0]), max_length)
    torch.testing.assert_close(found.log_probs, expected.unsqueeze(1))
    assert torch.equal(found.scores, found.log_probs)


def test_no_hypothesis_is_longer_than_the_limit(model):
    found = search([model], 3)

    assert found.tokens.shape == (B, 1, 3)
    assert Greedy(3).n_best == 1


def test_a_sequence_that_ends_at_once_is_empty(model):
    with torch.no_grad():
        model.decoder.output_layer.bias[EOS] = 1e3

    found = search([model], 5)

    assert found.tokens.shape == (B, 1, 0)
    torch.testing.assert_close(found.log_probs, torch.zeros(B, 1))  # the end is certain


@pytest.mark.parametrize("symbol", [PAD, BOS, UNK])
def test_special_tokens_are_never_chosen(model, symbol):
    with torch.no_grad():
        model.decoder.output_layer.bias[symbol] = 1e3

    found = to_lists(search([model], 5).tokens[:, 0])

    assert any(found)
    assert all(symbol not in tokens for tokens in found)
