"""Build a search from the section ``search`` of a config."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from seq2seq.data.vocabulary import SPECIALS
from seq2seq.decoding.beam import Beam
from seq2seq.decoding.greedy import Greedy
from seq2seq.decoding.output import Search
from seq2seq.decoding.sampling import Sampling
from seq2seq.errors import UserError, check_choice, check_count
from seq2seq.schema import Bounds, Count, Natural, check


class BeamSettings:
    """The keys of ``search=beam``."""

    kind: str
    max_length: Count | None
    n_best: Count
    beam_size: Count
    normalisation: Literal["gnmt", "average", "none"]
    alpha: Annotated[float, Bounds(0, 10)]


class SampleSettings:
    """The keys of ``search=sample``."""

    kind: str
    max_length: Count | None
    n_best: Count
    temperature: Annotated[float, Bounds(0.01, 100)]
    top_k: Natural
    top_p: Annotated[float, Bounds(0, math.nextafter(1, 2))]
    seed: Natural


SEARCHES = {"beam": BeamSettings, "sample": SampleSettings}
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
    kind = check_choice("search.kind", settings.get("kind"), SEARCHES)
    check("search", settings, SEARCHES[kind])
    options = {key: value for key, value in settings.items() if key not in ("kind", "max_length")}
    max_length = settings["max_length"] or max_length
    if kind == "sample":
        if options["top_p"] == 0:
            raise UserError(f"search.top_p={options['top_p']} must be above 0")
        return Sampling(max_length, **options)
    choices = vocabulary_size - len(SPECIALS) + 1  # all ordinary tokens, and the end
    beam_size = check_count("search.beam_size", options["beam_size"], maximum=choices)
    if options["n_best"] > beam_size:
        raise UserError(f"search.n_best={options['n_best']} must be at most search.beam_size={beam_size}")
    return Greedy(max_length) if beam_size == 1 else Beam(max_length, **options)
