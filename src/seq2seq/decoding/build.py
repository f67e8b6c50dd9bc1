"""Build a search from the section ``search`` of a config."""

import math
from collections.abc import Mapping
from typing import Any

from seq2seq.data.vocabulary import SPECIALS
from seq2seq.decoding.beam import NORMALISATIONS, Beam
from seq2seq.decoding.greedy import Greedy
from seq2seq.decoding.output import Search
from seq2seq.decoding.sampling import Sampling
from seq2seq.errors import UserError, check_choice, check_count, check_keys, check_number

KEYS = {
    "beam": {"kind", "max_length", "n_best", "beam_size", "normalisation", "alpha"},
    "sample": {"kind", "max_length", "n_best", "temperature", "top_k", "top_p", "seed"},
}
"""The keys of each kind of search (``search.kind``)."""


def build_search(settings: Mapping[str, Any], max_length: int, vocabulary_size: int) -> Search:
    """Build a search; a beam of 1 is `Greedy`.

    Args:
        settings: The section ``search``.
        max_length: Used if ``search.max_length`` is null.
        vocabulary_size: Number of target symbols, V.

    Raises:
        UserError: If a value is not allowed.
    """
    kind = check_choice("search.kind", settings.get("kind"), KEYS)
    check_keys("search", settings, KEYS[kind])
    if settings["max_length"] is not None:
        max_length = check_count("search.max_length", settings["max_length"])
    n_best = check_count("search.n_best", settings["n_best"])
    if kind == "sample":
        return _sampling(settings, max_length, n_best)
    choices = vocabulary_size - len(SPECIALS) + 1  # all ordinary tokens, and the end
    beam_size = check_count("search.beam_size", settings["beam_size"], maximum=choices)
    if n_best > beam_size:
        raise UserError(f"search.n_best={n_best} must be at most search.beam_size={beam_size}")
    normalisation = check_choice("search.normalisation", settings["normalisation"], NORMALISATIONS)
    alpha = check_number("search.alpha", settings["alpha"], 0, 10)
    if beam_size == 1:
        return Greedy(max_length)
    return Beam(max_length, beam_size, n_best, normalisation, alpha)


def _sampling(settings: Mapping[str, Any], max_length: int, n_best: int) -> Sampling:
    top_p = check_number("search.top_p", settings["top_p"], 0, math.nextafter(1, 2))
    if top_p == 0:
        raise UserError(f"search.top_p={settings['top_p']} must be above 0")
    return Sampling(
        max_length,
        n_best,
        temperature=check_number("search.temperature", settings["temperature"], 0.01, 100),
        top_k=check_count("search.top_k", settings["top_k"], minimum=0),
        top_p=top_p,
        seed=check_count("search.seed", settings["seed"], minimum=0),
    )
