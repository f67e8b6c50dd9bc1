"""Input and output of all searches."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from seq2seq.data.vocabulary import BOS, PAD, UNK
from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded


class SearchOutput(NamedTuple):
    """The result of a search: N hypotheses for each source, the best first.

    Attributes:
        tokens: Ids without begin and end, padded at the right with ``PAD``, ``(B, N, T)``.
        log_probs: Of each whole hypothesis, its end included unless it was cut, in nats, ``(B, N)``; minus infinity
            where there are fewer than N hypotheses.
        scores: What hypotheses are ordered by: log-probabilities, normalised by length in a beam search, ``(B, N)``.
    """

    tokens: Tensor
    log_probs: Tensor
    scores: Tensor


class Search(Protocol):
    """A search with its options.

    Attributes:
        max_length: Maximum number of tokens in a hypothesis, without the end.
        n_best: Number of hypotheses for each source, N.
    """

    @property
    def max_length(self) -> int: ...  # noqa: D102

    @property
    def n_best(self) -> int: ...  # noqa: D102

    def __call__(self, ensemble: Ensemble, encoded: EnsembleEncoded) -> SearchOutput:
        """Search for a batch; the ensemble must be in evaluation mode."""
        ...


class Alignment(NamedTuple):
    """The attention of a prediction.

    Attributes:
        source: Source tokens, S of them.
        target: Predicted tokens and, unless the prediction was cut, the end; T of them.
        weights: Attention weights, ``(T, S)``; with features, ``(T, S + F)``, theirs last.
        features: F of them; empty without features.
    """

    source: list[str]
    target: list[str]
    weights: Tensor
    features: Sequence[str] = ()


SPECIAL_TOKENS = (PAD, BOS, UNK)
"""Tokens that a search never chooses."""


def mask_special_tokens(log_probs: Tensor) -> Tensor:
    """Set the log-probabilities of `SPECIAL_TOKENS` to minus infinity in place, ``(..., V)``."""
    log_probs[..., list(SPECIAL_TOKENS)] = -torch.inf
    return log_probs


def to_lists(tokens: Tensor) -> list[list[int]]:
    """Return the ids of each hypothesis without padding, given ``(N, T)``."""
    return [[token for token in ids if token != PAD] for ids in tokens.tolist()]
