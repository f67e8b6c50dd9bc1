"""Beam search against all there is: over a tiny vocabulary every hypothesis can be written down and scored."""

import itertools

import pytest
import torch
from conftest import KINDS, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_forcing import teacher_forced

from seq2seq.data import BOS, EOS
from seq2seq.decoding import Beam, Ensemble, Greedy, to_lists

B, S, V = 7, 5, 6  # two letters beside the special symbols
NORMALISATIONS = [{"normalisation": "none"}, {"normalisation": "average"}, {"normalisation": "gnmt", "alpha": 0.6}]
any_normalisation = st.sampled_from(NORMALISATIONS)
pytestmark = pytest.mark.usefixtures("float64")


def make(seed=1, kind="luong", cell="gru"):
    return make_model(seed=seed, scale=3, cell=cell, target_size=V, decoder=KINDS[kind])


def make_source():
    torch.manual_seed(2)
    return torch.randint(0, 10, (B, S)), torch.tensor([5, 2, 1, 4, 3, 3, 5])


def search(models, max_length, source, lengths, **options):
    ensemble = Ensemble(models)
    return Beam(max_length, **options)(ensemble, ensemble.encode(source, lengths))


def divisor(length, normalisation, alpha=0.0):
    return {"none": 1, "average": length, "gnmt": ((5 + length) / 6) ** alpha}[normalisation]


def all_there_is(models, source, length, max_length, normalisation):
    """Every hypothesis of a source with its score, the best first, scored token by token under teacher forcing."""
    found = []
    for size in range(max_length + 1):
        for tokens in itertools.product(range(4, V), repeat=size):
            labels = [*tokens, EOS][:max_length]  # the longest are cut, so they have no end
            inputs = torch.tensor([[BOS, *tokens][: len(labels)]])
            probs = torch.stack(
                [model(source[:, :length], torch.tensor([length]), inputs).logits[0] for model in models]
            )
            each = probs.softmax(-1).mean(0).log()[torch.arange(len(labels)), torch.tensor(labels)]
            total = float(each.sum())
            found.append((total / divisor(len(labels), **normalisation), total, list(tokens)))
    return sorted(found, reverse=True)


@torch.no_grad()
@pytest.mark.parametrize("stop_early", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=lambda one: one["normalisation"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_beam_as_wide_as_the_space_finds_the_best_of_all(count, normalisation, stop_early):
    models, (source, lengths) = [make(1), make(2, "bahdanau", "lstm")][:count], make_source()

    found = search(models, 4, source, lengths, beam_size=40, n_best=5, **normalisation, stop_early=stop_early)

    for index in range(B):
        best = all_there_is(models, source[index : index + 1], int(lengths[index]), 4, normalisation)[:5]
        assert to_lists(found.tokens[index]) == [tokens for *_, tokens in best]
        torch.testing.assert_close(found.scores[index], torch.tensor([one for one, *_ in best]))
        torch.testing.assert_close(found.log_probs[index], torch.tensor([one for _, one, _ in best]))


def by_hand(model, source, length, max_length, beam_size, normalisation):
    """The finished hypotheses of one source, the best first: lists, and every prefix decoded anew at each step."""
    live, finished = [(0.0, [])], []
    for size in range(1, max_length + 1):
        inputs = torch.tensor([[BOS, *tokens] for _, tokens in live])
        logits = model(source[:, :length].expand(len(live), -1), torch.full((len(live),), length), inputs).logits
        grown = [
            (total + float(log_probs[token]), [*tokens, token])
            for (total, tokens), log_probs in zip(live, logits[:, -1].log_softmax(-1), strict=True)
            for token in (EOS, 4, 5)
        ]
        kept = sorted(grown, reverse=True)[: beam_size - len(finished)]  # one that has ended keeps its place
        ends = [one for one in kept if one[1][-1] == EOS or size == max_length]
        finished += [(total / divisor(size, **normalisation), total, tokens) for total, tokens in ends]
        live = [one for one in kept if one not in ends]
        if not live:
            break
    return sorted(finished, reverse=True)


@pytest.mark.parametrize("stop_early", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), any_normalisation)
@settings(max_examples=10)
@torch.no_grad()
def test_a_beam_agrees_with_one_that_keeps_lists(kind, stop_early, seed, beam_size, max_length, normalisation):
    model, (source, lengths) = make(seed, kind), make_source()
    n_best = min(2, beam_size)

    found = search(
        [model], max_length, source, lengths, beam_size=beam_size, n_best=n_best, **normalisation, stop_early=stop_early
    )

    for index in range(B):
        best = by_hand(model, source[index : index + 1], int(lengths[index]), max_length, beam_size, normalisation)
        scores = [score for score, *_ in best[:n_best]]
        assert to_lists(found.tokens[index, : len(scores)]) == [
            [token for token in tokens if token != EOS] for *_, tokens in best[:n_best]
        ]
        torch.testing.assert_close(found.scores[index, : len(scores)], torch.tensor(scores))
        assert (found.scores[index, len(scores) :] == -torch.inf).all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 9), any_normalisation)
@settings(max_examples=15)
def test_a_batch_gives_what_each_sequence_gives_alone_and_stopping_early_changes_nothing(
    kind, cell, seed, beam_size, max_length, normalisation
):
    models, (source, lengths) = [make(seed, kind, cell)], make_source()
    options = {"beam_size": beam_size, "n_best": min(2, beam_size), **normalisation}

    found = search(models, max_length, source, lengths, **options)

    for index, stop_early in itertools.product(range(B), (True, False)):
        one = slice(index, index + 1)
        alone = search(
            models, max_length, source[one, : lengths[index]], lengths[one], **options, stop_early=stop_early
        )
        assert to_lists(alone.tokens[0]) == to_lists(found.tokens[index])
        torch.testing.assert_close(alone.log_probs[0], found.log_probs[index])
        torch.testing.assert_close(alone.scores[0], found.scores[index])


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 999), st.integers(1, 9), any_normalisation)
@settings(max_examples=30)
def test_a_beam_of_one_is_greedy_search(kind, seed, max_length, normalisation):
    ensemble = Ensemble([make(seed, kind)])
    encoded = ensemble.encode(*make_source())

    found, greedy = (
        one(ensemble, encoded) for one in (Beam(max_length, beam_size=1, **normalisation), Greedy(max_length))
    )

    assert torch.equal(found.tokens, greedy.tokens)
    torch.testing.assert_close(found.log_probs, greedy.log_probs)


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 9), any_normalisation)
@settings(max_examples=30)
@torch.no_grad()
def test_log_probabilities_are_those_of_teacher_forcing_and_scores_are_normalised(
    seed, beam_size, max_length, normalisation
):
    models, (source, lengths) = [make(seed), make(seed + 1, "gnmt", "lstm")], make_source()

    found = search(models, max_length, source, lengths, beam_size=beam_size, n_best=beam_size, **normalisation)

    for place in range(beam_size):
        real = found.log_probs[:, place] > -torch.inf  # a short maximum length has fewer hypotheses than the beam
        hypotheses = to_lists(found.tokens[:, place])
        again = teacher_forced(Ensemble(models), source, lengths, hypotheses, max_length)
        divisors = [divisor(min(len(tokens) + 1, max_length), **normalisation) for tokens in hypotheses]
        torch.testing.assert_close(found.log_probs[real, place], again[real])
        torch.testing.assert_close(found.scores[real, place], (again / torch.tensor(divisors))[real])
        assert torch.equal(found.scores[:, place] > -torch.inf, real)
    assert (found.scores.diff(dim=1)[found.scores[:, 1:] > -torch.inf] <= 0).all()


def test_an_ensemble_of_two_equal_models_is_the_model():
    model, options = make(), {"beam_size": 3, "n_best": 3, "normalisation": "average"}

    one, two = (search(models, 6, *make_source(), **options) for models in ([model], [model, model]))

    assert torch.equal(one.tokens, two.tokens)
    torch.testing.assert_close(one.log_probs, two.log_probs)


def test_the_memory_is_not_copied_for_each_hypothesis_and_sequences_that_are_done_leave_it():
    model, seen = make(seed=4), []
    model.decoder.attention.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1].mask.size(0)))

    search([model], 9, *make_source(), beam_size=4)

    assert seen[0] == B
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] <= B / 2


def test_where_there_are_fewer_hypotheses_than_wanted_the_rest_are_empty_and_impossible():
    found = search([make()], 1, *make_source(), beam_size=3, n_best=3)  # the end or one of two letters

    assert found.log_probs.isfinite().all()
    assert sorted(map(tuple, to_lists(found.tokens[0]))) == [(), (4,), (5,)]

    found = search([make()], 1, *make_source(), beam_size=4, n_best=4)

    assert to_lists(found.tokens[:, 3]) == [[]] * B
    assert (found.log_probs[:, 3] == -torch.inf).all()
