"""Predictions for new text: three lines of Python, or `scripts/predict.py`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from seq2seq.data.dataset import Sequences
from seq2seq.data.vocabulary import BOS
from seq2seq.decoding.greedy import Alignment, encode, to_lists
from seq2seq.decoding.search import Search
from seq2seq.errors import UserError
from seq2seq.training.checkpoints import load_module
from seq2seq.training.module import Seq2SeqModule

MOST_TOKENS = 64 * 256
"""Most source tokens of a batch, padding included: one long line must not pad a whole batch to its length."""


class Hypothesis(NamedTuple):
    """A predicted text.

    Attributes:
        text: The prediction.
        log_prob: Of the whole of it, its end included unless it was cut, in nats; not a number if it was not asked for.
        ids: Of its tokens.
    """

    text: str
    log_prob: float
    ids: list[int]


class Predictor:
    """Predicts target texts for source texts.

    Args:
        modules: Trained models; several with the same vocabularies are an ensemble.
        device: Where to compute: ``cpu``, ``cuda``, ... or ``auto``.
        search: How; greedy by default.

    Raises:
        UserError: If the device is unknown or absent, or the vocabularies differ.
    """

    def __init__(self, modules: Sequence[Seq2SeqModule], device: str = "cpu", search: Search | None = None) -> None:
        check_one_vocabulary(modules)
        self.device = find_device(device)
        self.models = [module.model.to(self.device).eval() for module in modules]
        self.source, self.target = modules[0].source, modules[0].target
        self.search = search or Search(modules[0].max_length)

    def __call__(self, texts: Sequence[str], batch_size: int = 64) -> list[str]:
        """Return the best prediction for each text, in order; an empty text gives an empty one."""
        return [hypotheses[0].text for hypotheses in self.n_best(texts, batch_size)]

    def n_best(self, texts: Sequence[str], batch_size: int = 64, *, scored: bool = False) -> list[list[Hypothesis]]:
        """Return the N best predictions for each text, in order, the best first.

        Args:
            texts: An empty one gives N empty predictions.
            batch_size: Most texts at once.
            scored: Whether log-probabilities are wanted.
        """
        encoded = [self.source.encode(text) for text in texts]
        filled = [row for row, ids in enumerate(encoded) if ids and texts[row].strip()]
        filled.sort(key=lambda row: len(encoded[row]))
        predictions = [[Hypothesis("", 0.0, [])] * self.search.n_best] * len(texts)
        for rows in cut_batches(filled, [len(encoded[row]) for row in filled], batch_size):
            for row, hypotheses in zip(rows, self._search([encoded[row] for row in rows], scored), strict=True):
                predictions[row] = hypotheses
        return predictions

    @torch.inference_mode()
    def _search(self, sources: Sequence[Sequence[int]], scored: bool) -> list[list[Hypothesis]]:
        sequences = Sequences(sources)
        source = sequences.padded(torch.arange(len(sequences))).to(self.device)
        found = self.search(self.models, encode(self.models, source, sequences.lengths), scored=scored)
        return [
            [
                Hypothesis(self.target.decode(ids), log_prob, ids)
                for ids, log_prob in zip(to_lists(row), log_probs, strict=True)
            ]
            for row, log_probs in zip(found.tokens, found.log_probs.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def align(self, text: str, prediction: Hypothesis) -> Alignment | None:
        """Return where the decoder looked while it wrote a prediction; None without attention.

        Args:
            text: The source; not empty.
            prediction: One for it.
        """
        ids, target = self.source.encode(text), prediction.ids
        ended = ["end"] if len(target) < self.search.max_length else []
        # One law: the whole prediction in one call gives the weights that each step had.
        source, inputs = torch.tensor([ids], device=self.device), torch.tensor([[BOS, *target]], device=self.device)
        outputs = [model(source, torch.tensor([len(ids)]), inputs).weights for model in self.models]
        weights = [one for one in outputs if one is not None]
        if not weights:
            return None
        tokens = self.target.vocabulary.tokens(target) + ended
        return Alignment(self.source.split(text), tokens, torch.stack(weights).mean(0)[0, : len(tokens)].cpu())


def check_one_vocabulary(modules: Sequence[Seq2SeqModule]) -> None:
    """Refuse an ensemble whose models do not read and write the same symbols."""
    for number, module in enumerate(modules[1:], start=2):
        for side in ("source", "target"):
            if module.hparams[side] != modules[0].hparams[side]:
                raise UserError(
                    f"checkpoint: the {side} vocabulary of the {number}. checkpoint differs from that of the first; "
                    "an ensemble needs models that were trained on the same data"
                )


def load_modules(checkpoint: object) -> list[Seq2SeqModule]:
    """Load what ``checkpoint`` in a config names: a path, or a list of paths.

    Raises:
        UserError: If one is no checkpoint of ours.
    """
    paths = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    if not paths:
        raise UserError("checkpoint=[] must name at least one file")
    return [load_module(str(path)) for path in paths]


def load(*checkpoints: str | Path, device: str = "cpu") -> Predictor:
    """Load a checkpoint as something that predicts, ``load("best.ckpt")(["jeudi 2 janvier 2003"])``; several together.

    Raises:
        UserError: If one is no checkpoint of ours, or they are no ensemble.
    """
    return Predictor(load_modules(list(checkpoints)), device)


def find_device(name: object) -> torch.device:
    """Return the device of that name; ``auto`` takes an accelerator if there is one."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(str(name))
        torch.zeros(1, device=device).item()  # a device without memory of its own fails here
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={name} is not available here; use auto or cpu") from error
    return device


def cut_batches(rows: list[int], lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Yield rows in batches of at most ``batch_size`` rows and `MOST_TOKENS` padded tokens, but at least one row.

    Args:
        rows: In order of length.
        lengths: Of each.
        batch_size: Most rows of a batch.
    """
    batch: list[int] = []
    for row, length in zip(rows, lengths, strict=True):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * length > MOST_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
