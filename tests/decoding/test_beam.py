"""Beam search against all there is: over a tiny vocabulary every hypothesis can be written down and scored."""

import itertools

import pytest
import torch
from conftest import LUONG
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.data import BOS, EOS, PAD
from seq2seq.decoding.beam import LengthNormalisation, beam
from seq2seq.decoding.greedy import encode, greedy, score, to_lists
from seq2seq.nn import build_model

B, S, V = 7, 5, 6  # two letters beside the special symbols
NORMALISATIONS = [LengthNormalisation("none"), LengthNormalisation("average"), LengthNormalisation("gnmt", 0.6)]
KINDS = [LUONG, LUONG | {"input_feeding": True}, LUONG | {"kind": "gnmt"}, LUONG | {"kind": "bahdanau"}]
pytestmark = pytest.mark.usefixtures("float64")


def make_model(seed=1, kind=LUONG, cell="gru"):
    torch.manual_seed(seed)
    part = {"cell": cell, "embedding_size": 8, "hidden_size": 10, "num_layers": 2}
    made = build_model(
        source_size=9, target_size=V, encoder=part | {"bidirectional": True}, decoder=part | kind, bridge="linear",
        attention="general", num_heads=1, dropout=0.0,
    )  # fmt: skip
    with torch.no_grad():  # large weights, so that hypotheses differ
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


def make_source():
    torch.manual_seed(2)
    return torch.randint(4, 9, (B, S)), torch.tensor([5, 2, 1, 4, 3, 3, 5])


def all_there_is(models, source, length, max_length, normalisation):
    """Every hypothesis of a row with its score, the best first, scored token by token under teacher forcing."""
    found = []
    for size in range(max_length + 1):
        for tokens in itertools.product(range(4, V), repeat=size):
            labels = [*tokens, EOS][:max_length]  # the longest are cut, so they have no end
            inputs = torch.tensor([[BOS, *tokens][: len(labels)]])
            probs = torch.stack(
                [model(source[:, :length], torch.tensor([length]), inputs).logits[0] for model in models]
            )
            each = probs.softmax(-1).mean(0).log()[torch.arange(len(labels)), torch.tensor(labels)]
            divisor = {"none": 1, "average": len(labels), "gnmt": ((5 + len(labels)) / 6) ** 0.6}[normalisation.kind]
            found.append((float(each.sum()) / divisor, float(each.sum()), list(tokens)))
    return sorted(found, reverse=True)


@torch.no_grad()
@pytest.mark.parametrize("stop_early", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=lambda one: one.kind)
@pytest.mark.parametrize("count", [1, 2])
def test_a_beam_as_wide_as_the_space_finds_the_best_of_all(count, normalisation, stop_early):
    models, (source, lengths) = [make_model(1), make_model(2, KINDS[3], "lstm")][:count], make_source()

    found = beam(
        models, encode(models, source, lengths), 4,
        beam_size=40, n_best=5, normalisation=normalisation, stop_early=stop_early,
    )  # fmt: skip

    for row in range(B):
        best = all_there_is(models, source[row : row + 1], int(lengths[row]), 4, normalisation)[:5]
        assert to_lists(found.tokens[row]) == [tokens for *_, tokens in best]
        torch.testing.assert_close(found.scores[row], torch.tensor([one for one, *_ in best]))
        torch.testing.assert_close(found.log_probs[row], torch.tensor([one for _, one, _ in best]))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one["kind"] + " feeding" * one["input_feeding"])
@given(
    seed=st.integers(0, 99), beam_size=st.integers(1, 4), max_length=st.integers(1, 9),
    normalisation=st.sampled_from(NORMALISATIONS),
)  # fmt: skip
@settings(max_examples=15)
def test_a_beam_over_a_batch_is_the_same_row_by_row_and_stopping_early_changes_nothing(
    kind, cell, seed, beam_size, max_length, normalisation
):
    models, (source, lengths) = [make_model(seed, kind, cell)], make_source()
    options = {"beam_size": beam_size, "n_best": min(2, beam_size), "normalisation": normalisation}

    found = beam(models, encode(models, source, lengths), max_length, **options)

    for stop_early in (True, False):
        rows = (
            beam(
                models,
                encode(models, source[row : row + 1, :length], lengths[row : row + 1]),
                max_length,
                **options,
                stop_early=stop_early,
            )
            for row, length in enumerate(lengths.tolist())
        )
        for row, alone in enumerate(rows):
            assert to_lists(alone.tokens[0]) == to_lists(found.tokens[row])
            torch.testing.assert_close(alone.log_probs[0], found.log_probs[row])


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one["kind"] + " feeding" * one["input_feeding"])
@given(seed=st.integers(0, 999), max_length=st.integers(1, 9), normalisation=st.sampled_from(NORMALISATIONS))
@settings(max_examples=30)
def test_a_beam_of_one_is_greedy_search(kind, seed, max_length, normalisation):
    models, (source, lengths) = [make_model(seed, kind)], make_source()
    encoded = encode(models, source, lengths)

    found = beam(models, encoded, max_length, beam_size=1, n_best=1, normalisation=normalisation)

    assert to_lists(found.tokens[:, 0]) == to_lists(greedy(models, encoded, max_length))


@given(seed=st.integers(0, 999), beam_size=st.integers(1, 6), max_length=st.integers(1, 9))
@settings(max_examples=30)
def test_scores_are_those_of_teacher_forcing(seed, beam_size, max_length):
    models, (source, lengths) = [make_model(seed), make_model(seed + 1)], make_source()
    encoded = encode(models, source, lengths)

    found = beam(models, encoded, max_length, beam_size=beam_size, n_best=beam_size, normalisation=NORMALISATIONS[2])

    for place in range(beam_size):
        real = found.log_probs[:, place] > -torch.inf  # a short maximum length has fewer hypotheses than the beam
        again = score(models, encoded, found.tokens[:, place], max_length)
        torch.testing.assert_close(found.log_probs[real, place], again[real])
        sizes = (found.tokens[:, place] != PAD).sum(1)
        lengths_with_end = (sizes + 1).clamp(max=max_length)
        expected = found.log_probs[:, place] / ((5 + lengths_with_end) / 6) ** 0.6
        torch.testing.assert_close(found.scores[real, place], expected[real])
    assert (found.scores.diff(dim=1)[found.scores[:, 1:] > -torch.inf] <= 0).all()


def test_an_ensemble_of_two_equal_models_is_the_model():
    model, (source, lengths) = make_model(), make_source()
    options = {"beam_size": 3, "n_best": 3, "normalisation": NORMALISATIONS[1]}

    one, two = (beam(models, encode(models, source, lengths), 6, **options) for models in ([model], [model, model]))

    assert torch.equal(one.tokens, two.tokens)
    torch.testing.assert_close(one.log_probs, two.log_probs)
