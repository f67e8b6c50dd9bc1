"""Build a search from the section ``search`` of a config."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from seq2seq.data.vocabulary import SPECIALS
from seq2seq.decoding.beam import Beam
from seq2seq.decoding.greedy import Greedy
from seq2seq.decoding.output import Search
from seq2seq.decoding.sampling import Sampling
from seq2seq.errors import UserError
from seq2seq.model import Length
from seq2seq.settings import Count, Natural, Settings, choose, read_settings


class SearchSettings(Settings):
    """The keys of every search; a subclass adds its own."""

    kind: str
    max_length: Length | None
    n_best: Count

    def build(self, max_length: int, vocabulary_size: int) -> Search:
        """Return the search for predictions of at most ``max_length`` of V symbols; ``max_length`` above is null.

        Raises:
            UserError: If a value does not fit.
        """
        raise NotImplementedError


class BeamSettings(SearchSettings):
    """The keys of ``search=beam``."""

    beam_size: Count
    normalisation: Literal["gnmt", "average", "none"]
    alpha: Annotated[float, Field(ge=0, lt=10)]

    def build(self, max_length: int, vocabulary_size: int) -> Search:
        """Return a `Beam`, or `Greedy` for a beam of 1."""
        choices = vocabulary_size - len(SPECIALS) + 1  # all ordinary tokens, and the end
        if self.beam_size > choices:
            allowed = f"a whole number of at least 1 and at most {choices}"
            raise UserError(f"search.beam_size={self.beam_size} must be {allowed}")
        if self.n_best > self.beam_size:
            raise UserError(f"search.n_best={self.n_best} must be at most search.beam_size={self.beam_size}")
        options = self.model_dump(exclude={"kind", "max_length"})
        return Greedy(max_length) if self.beam_size == 1 else Beam(max_length, **options)


class SampleSettings(SearchSettings):
    """The keys of ``search=sample``."""

    temperature: Annotated[float, Field(ge=0.01, lt=100)]
    top_k: Natural
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: Natural

    def build(self, max_length: int, vocabulary_size: int) -> Search:  # noqa: ARG002
        """Return a `Sampling`."""
        return Sampling(max_length, **self.model_dump(exclude={"kind", "max_length"}))


SEARCHES: dict[str, type[SearchSettings]] = {"beam": BeamSettings, "sample": SampleSettings}
"""Registry of searches: value of ``search.kind`` to the class that holds its keys and builds it."""


def build_search(
    settings: Mapping[str, Any], max_length: int, vocabulary_size: int, *, only_best: bool = False
) -> Search:
    """Build the search of the section ``search``, for V target symbols.

    ``max_length`` is used if ``search.max_length`` is null; ``only_best`` refuses an ``n_best`` above 1.

    Raises:
        UserError: If a value is not allowed.
    """
    values = read_settings(choose("search.kind", settings.get("kind"), SEARCHES), settings, "search")
    if only_best and values.n_best > 1:
        raise UserError(f"search.n_best={values.n_best} must be 1 here: only the best prediction is evaluated")
    return values.build(values.max_length or max_length, vocabulary_size)
