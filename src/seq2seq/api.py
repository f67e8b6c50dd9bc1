"""Load a checkpoint and predict: what a program imports."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

import torch

from seq2seq.checkpoint import load_model
from seq2seq.data import Batch, BucketSampler, FlatSequences, PairDataset
from seq2seq.decoding import (
    Alignment,
    Ensemble,
    EnsembleEncoded,
    Greedy,
    Inference,
    Results,
    Sampling,
    Search,
    to_lists,
)
from seq2seq.errors import UserError
from seq2seq.model import TrainedModel

MAX_TOKENS = 64 * 256
"""Maximum number of source tokens in a batch, padding included, so that a long line does not pad many short ones."""

Encodings = Sequence[tuple[list[int], list[int]]]
"""The ids of the source and of the features of some texts."""


class Hypothesis(NamedTuple):
    """A predicted text.

    Attributes:
        text: The prediction.
        log_prob: Of all its tokens, the end included unless it was cut, in nats.
        ids: Of its tokens.
        score: What the hypotheses of a text are ordered by: the log-probability, normalised by length in a beam search.
    """

    text: str
    log_prob: float
    ids: list[int]
    score: float


class Predictor:
    """Predicts target texts for source texts.

    Args:
        models: Trained models; several with the same vocabularies are an ensemble.
        device: ``cpu``, ``cuda``, ... or ``auto``.
        search: The search; greedy by default.
        workers: Number of processes that predict, with one thread each; see `seq2seq.decoding.Inference`.

    Raises:
        UserError: If the device is unknown or absent, or the vocabularies differ.
    """

    def __init__(
        self,
        models: Sequence[TrainedModel],
        device: str = "cpu",
        search: Search | None = None,
        workers: int | Literal["auto"] = 0,
    ) -> None:
        self.device = find_device(device)
        self.ensemble = make_ensemble(models, self.device)
        self.tokenizers = models[0].tokenizers
        self.search = search or Greedy(models[0].max_length)
        self.inference = Inference(Results(self.ensemble, self.device, self._read, self._search), workers)
        self._batches = 0  # so far

    def __call__(self, texts: Sequence[str], batch_size: int = 64) -> list[str]:
        """Return the best prediction for each text, in order; an empty text gives an empty one."""
        return [hypotheses[0].text for hypotheses in self.n_best(texts, batch_size)]

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text's source and of its features; none for a text without tokens, or of spaces only."""
        return self.tokenizers.encode(text) if text.strip() else ([], [])

    def n_best(self, texts: Sequence[str], batch_size: int = 64) -> list[list[Hypothesis]]:
        """Return the N best predictions for each text, in order, the best first; for an empty text, N empty ones."""
        encoded = [self.encode(text) for text in texts]
        positions = [position for position, (ids, _) in enumerate(encoded) if ids]
        predictions = [[Hypothesis("", 0.0, [], 0.0)] * self.search.n_best] * len(texts)
        lengths = torch.tensor([len(encoded[position][0]) for position in positions], dtype=torch.long)
        sampler = BucketSampler(lengths, lengths, batch_size=batch_size, shuffle=False, max_tokens=MAX_TOKENS)
        batches = [[positions[index] for index in batch] for batch in sampler]
        keys = [(number, [encoded[position] for position in one]) for number, one in enumerate(batches, self._batches)]
        self._batches += len(batches)
        for batch, found in zip(batches, self.inference(keys), strict=True):
            for position, hypotheses in zip(batch, found, strict=True):
                predictions[position] = hypotheses
        return predictions

    def _read(self, key: tuple[int, Encodings]) -> Batch:
        """Return the batch of a key: its number, and the encoded texts."""
        return self._dataset(key[1])[range(len(key[1]))]

    def _dataset(self, encoded: Encodings, targets: FlatSequences | None = None) -> PairDataset:
        sources, features = (FlatSequences(one[part] for one in encoded) for part in (0, 1))
        return PairDataset(sources, targets, features if self.tokenizers.features else None)

    def _search(self, key: tuple[int, Encodings], _: Batch, encoded: EnsembleEncoded) -> list[list[Hypothesis]]:
        # A worker does not know what others have drawn, so that each batch has a seed of its own.
        search = self.search.of_batch(key[0]) if isinstance(self.search, Sampling) else self.search
        found, decode = search(self.ensemble, encoded), self.tokenizers.target.decode
        return [
            [
                Hypothesis(decode(ids), log_prob, ids, score)
                for ids, log_prob, score in zip(to_lists(tokens), log_probs, scores, strict=True)
            ]
            for tokens, log_probs, scores in zip(
                found.tokens, found.log_probs.tolist(), found.scores.tolist(), strict=True
            )
        ]

    @torch.inference_mode()
    def align(self, text: str, prediction: Hypothesis) -> Alignment | None:
        """Return the attention weights of a prediction for a text; None without attention or tokens in the text."""
        encoded = self.encode(text)
        if not encoded[0]:
            return None
        batch = self._dataset([encoded], FlatSequences([prediction.ids]))[[0]].to(self.device)
        # Reading the whole prediction in one call gives the same weights as step by step.
        _, weights = self.ensemble(batch.source, batch.source_lengths, batch.inputs, batch.features)
        if weights is None:
            return None
        ended = ["end"] if len(prediction.ids) < self.search.max_length else []
        target = self.tokenizers.target.vocabulary.tokens(prediction.ids) + ended
        source, features = self.tokenizers.shown(text)
        return Alignment(source, target, weights[0, : len(target)].cpu(), features)


class Vote:
    """Predicts what most of several models predict, which may differ in everything, their vocabularies included.

    Each votes for its best prediction; of texts with equal votes, that with the highest mean log-probability wins.

    Args:
        predictors: One for each model, or ensemble.

    Raises:
        UserError: If they read different numbers of columns.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.predictors, self.tokenizers = predictors, predictors[0].tokenizers
        for number, predictor in enumerate(predictors[1:], start=2):
            found, first = predictor.tokenizers.columns, self.tokenizers.columns
            if found != first:
                problem = f"checkpoint {number} reads {found} columns and the first reads {first}"
                raise UserError(f"checkpoint: {problem}; a vote needs models that read the same texts")

    def __call__(self, texts: Sequence[str], batch_size: int = 64) -> list[str]:
        """Return the elected prediction for each text, in order."""
        return [hypotheses[0].text for hypotheses in self.n_best(texts, batch_size)]

    def n_best(self, texts: Sequence[str], batch_size: int = 64) -> list[list[Hypothesis]]:
        """Return the elected prediction for each text, in order, with the mean log-probability of its voters."""
        members = [predictor.n_best(texts, batch_size) for predictor in self.predictors]
        return [[elect([hypotheses[0] for hypotheses in every])] for every in zip(*members, strict=True)]


def elect(votes: Sequence[Hypothesis]) -> Hypothesis:
    """Return the text with the most votes, and of these the one with the highest mean log-probability.

    Example:
        >>> votes = [Hypothesis(text, score, [], score) for text, score in (("a", -0.1), ("b", -2.0), ("b", -4.0))]
        >>> elect(votes)
        Hypothesis(text='b', log_prob=-3.0, ids=[], score=-3.0)
    """
    log_probs: dict[str, list[float]] = {}
    for vote in votes:
        log_probs.setdefault(vote.text, []).append(vote.log_prob)
    text, own = max(log_probs.items(), key=lambda item: (len(item[1]), fmean(item[1])))
    return Hypothesis(text, fmean(own), [], fmean(own))


def make_ensemble(models: Sequence[TrainedModel], device: torch.device) -> Ensemble:
    """Return an ensemble on a device and in evaluation mode, or raise `UserError` if the vocabularies differ."""
    for number, model in enumerate(models[1:], start=2):
        own, first = model.tokenizers.to_dicts(), models[0].tokenizers.to_dicts()
        for part in own | first:
            if own.get(part) != first.get(part):
                problem = f"the {part} vocabulary of checkpoint {number} differs from that of the first"
                raise UserError(f"checkpoint: {problem}; an ensemble needs models that were trained on the same data")
    return Ensemble([one.model for one in models]).to(device).eval()


def named_paths(checkpoint: object) -> list[str]:
    """Return the path or the list of paths that ``checkpoint`` in a config names, or raise `UserError` without any."""
    if checkpoint == []:
        raise UserError("checkpoint=[] must name at least one file")
    return [str(path) for path in (checkpoint if isinstance(checkpoint, list) else [checkpoint])]


def load_models(checkpoint: object) -> list[TrainedModel]:
    """Load the checkpoint or the list of checkpoints that ``checkpoint`` in a config names; see `load_model`."""
    return [load_model(path) for path in named_paths(checkpoint)]


def load(*checkpoints: str | Path, device: str = "cpu", workers: int | Literal["auto"] = 0) -> Predictor:
    """Load a checkpoint to predict with, or several as an ensemble: ``load("best.ckpt")(["jeudi 2 janvier 2003"])``.

    Many texts are predicted faster by several processes: ``workers=4``, say, in a program that has a main guard.

    Raises:
        UserError: If one is not a checkpoint of this project, or they do not fit together.
    """
    return Predictor(load_models(list(checkpoints)), device, workers=workers)


def find_device(name: object) -> torch.device:
    """Return the device of that name; ``auto`` takes an accelerator if there is one."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(str(name))
        torch.zeros(1, device=device).item()  # fails on a device that is not there
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={name} is not available here; use auto or cpu") from error
    return device
