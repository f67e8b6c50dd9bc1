"""Which search to use, from the keys of ``search`` in a config."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seq2seq.data.vocabulary import SPECIALS
from seq2seq.decoding.beam import NORMALISATIONS, NOT_NORMALISED, Found, LengthNormalisation, beam
from seq2seq.decoding.greedy import Sampling, greedy, sample, score
from seq2seq.errors import UserError, check_choice, check_count, check_keys, check_number
from seq2seq.nn.seq2seq import Encoded, Seq2Seq

KEYS = {
    "beam": {"kind", "max_length", "n_best", "beam_size", "normalisation", "alpha"},
    "sample": {"kind", "max_length", "n_best", "temperature", "top_k", "top_p", "seed"},
}
"""The keys of each kind of search (``search.kind``)."""


@dataclass
class Search:
    """A search with its settings; by itself greedy.

    Attributes:
        max_length: Most tokens of a hypothesis, without the end.
        n_best: Hypotheses for each row, N.
        beam_size: K; 1 is greedy search.
        normalisation: What orders the hypotheses of a beam.
        sampling: How to draw tokens instead; None: not to.
        seed: Of what is drawn.
    """

    max_length: int
    n_best: int = 1
    beam_size: int = 1
    normalisation: LengthNormalisation = NOT_NORMALISED
    sampling: Sampling | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._generator: torch.Generator | None = None

    def __call__(self, models: Sequence[Seq2Seq], encoded: Sequence[Encoded], *, scored: bool = False) -> Found:
        """Search for a batch.

        Args:
            models: In evaluation mode.
            encoded: The batch, by each of them.
            scored: Whether the log-probabilities are wanted; only a beam has them in any case.
        """
        if self.sampling is None and self.beam_size > 1:
            return beam(
                models, encoded, self.max_length,
                beam_size=self.beam_size, n_best=self.n_best, normalisation=self.normalisation,
            )  # fmt: skip
        mask = encoded[0].memory.mask
        if self.sampling is None:
            tokens = greedy(models, encoded, self.max_length)
        else:
            rows = torch.arange(mask.size(0), device=mask.device).repeat_interleave(self.n_best)
            encoded = [one.select(rows) for one in encoded]
            if self._generator is None:
                self._generator = torch.Generator(mask.device).manual_seed(self.seed)
            tokens = sample(models, encoded, self.max_length, self.sampling, self._generator)
        log_probs = torch.full((len(tokens),), math.nan, device=mask.device)
        if scored:
            log_probs = score(models, encoded, tokens, self.max_length)
        log_probs = log_probs.view(-1, self.n_best)
        return Found(tokens.view(mask.size(0), self.n_best, tokens.size(1)), log_probs, log_probs)


def build_search(settings: Mapping[str, Any], max_length: int, vocabulary_size: int) -> Search:
    """Build the search that ``search`` in a config describes.

    Args:
        settings: Its keys.
        max_length: For where they leave it open.
        vocabulary_size: Of the target, V.

    Raises:
        UserError: If a value is not allowed.
    """
    kind = check_choice("search.kind", settings.get("kind"), KEYS)
    check_keys("search", settings, KEYS[kind])
    if settings["max_length"] is not None:
        max_length = check_count("search.max_length", settings["max_length"])
    n_best = check_count("search.n_best", settings["n_best"])
    if kind == "sample":
        temperature = check_number("search.temperature", settings["temperature"], 0.01, 100)
        top_p = check_number("search.top_p", settings["top_p"], 0, math.nextafter(1, 2))
        if top_p == 0:
            raise UserError(f"search.top_p={settings['top_p']} must be above 0")
        top_k = check_count("search.top_k", settings["top_k"], minimum=0)
        seed = check_count("search.seed", settings["seed"], minimum=0)
        return Search(max_length, n_best, sampling=Sampling(temperature, top_k, top_p), seed=seed)
    choices = vocabulary_size - len(SPECIALS) + 1  # all symbols that a text is written with, and the end
    beam_size = check_count("search.beam_size", settings["beam_size"], maximum=choices)
    if n_best > beam_size:
        raise UserError(f"search.n_best={n_best} must be at most search.beam_size={beam_size}")
    normalisation = check_choice("search.normalisation", settings["normalisation"], NORMALISATIONS)
    alpha = check_number("search.alpha", settings["alpha"], 0, 10)
    return Search(max_length, n_best, beam_size, LengthNormalisation(normalisation, alpha))
