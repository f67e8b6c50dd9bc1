"""From the section ``search`` of a config to a search; see tests/commands/test_predict.py for other refusals."""

import pytest

from seq2seq.decoding import Beam, Greedy, Sampling, build_search
from seq2seq.errors import UserError

BEAM = {"kind": "beam", "max_length": None, "n_best": 2, "beam_size": 3, "normalisation": "gnmt", "alpha": 0.6}
SAMPLE = {
    "kind": "sample", "max_length": None, "n_best": 4, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "seed": 8,
}  # fmt: skip


def build(settings, **changes):
    return build_search(settings | changes, max_length=12, vocabulary_size=10)


def test_a_search_gets_every_setting():
    assert build(BEAM) == Beam(12, beam_size=3, n_best=2, normalisation="gnmt", alpha=0.6)
    assert build(SAMPLE) == Sampling(12, n_best=4, temperature=0.5, top_k=7, top_p=0.9, seed=8)


def test_a_beam_of_one_hypothesis_is_greedy_search():
    assert build(BEAM, beam_size=1, n_best=1) == Greedy(12)


@pytest.mark.parametrize("settings", [BEAM, BEAM | {"beam_size": 1, "n_best": 1}, SAMPLE])
def test_a_maximum_length_takes_the_place_of_the_default(settings):
    assert build(settings, max_length=5).max_length == 5


def test_a_beam_is_at_most_as_wide_as_all_ordinary_tokens_and_the_end():
    assert build(BEAM, beam_size=7).beam_size == 7  # of 10 symbols, three are never chosen

    with pytest.raises(UserError, match=r"search\.beam_size=8 must be a whole number of at least 1 and at most 7"):
        build(BEAM, beam_size=8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (BEAM | {"kind": None}, r"search\.kind=None must be one of beam, sample"),
        ({"beam_size": 3}, r"search\.kind=None must be one of beam, sample"),
        (BEAM | {"n_best": 0}, r"search\.n_best=0 must be a whole number of at least 1"),
        (SAMPLE | {"n_best": 1.5}, r"search\.n_best=1\.5 must be a whole number of at least 1"),
        (SAMPLE | {"seed": -1}, r"search\.seed=-1 must be a whole number of at least 0"),
        (SAMPLE | {"beam_size": 3}, r"search\.beam_size is unknown; the keys of search are kind, max_length, n_best, "),
        ({key: value for key, value in BEAM.items() if key != "alpha"}, r"search\.alpha is missing; the keys of se"),
    ],
)
def test_a_mistake_is_named_by_key_and_value(settings, message):
    with pytest.raises(UserError, match=message):
        build(settings)
