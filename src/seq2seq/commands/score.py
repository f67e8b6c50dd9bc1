"""Log-probabilities of given pairs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig

from seq2seq.api import find_device, load_models, make_ensemble, named_paths
from seq2seq.data import Batch, Pair
from seq2seq.decoding import Ensemble, EnsembleEncoded, Inference, Results
from seq2seq.reporting.tables import as_cell
from seq2seq.runs.files import check_different, check_free, output_or_stdout, write_lines
from seq2seq.settings import CommandSettings, Workers, read_settings, resolve_config
from seq2seq.training.datamodule import PairsDataModule
from seq2seq.training.evaluation_data import data_of_checkpoint

COLUMNS = ("source", "target", "log_prob", "log_prob_per_token", "token_log_probs")
"""The header of the output."""


class ScoreSettings(CommandSettings):
    """The keys of ``configs/score.yaml``."""

    checkpoint: Any
    data: dict[str, Any] | None = None
    output: int | str | None
    overwrite: bool
    device: str
    workers: Workers


def score(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Write a header, and a line per test pair: its texts, and the log-probabilities of the target, in nats.

    The end of the target counts as its last token. A token that is not in the vocabulary is scored as the unknown
    symbol.

    Raises:
        UserError: If the checkpoint, a file or a setting is not valid.
    """
    settings = read_settings(ScoreSettings, resolve_config(config))
    output = settings.output
    check_free("output", output, overwrite=settings.overwrite)
    for checkpoint in named_paths(settings.checkpoint):
        check_different(checkpoint=checkpoint, output=output)
    device = find_device(settings.device)
    models = load_models(settings.checkpoint)
    ensemble = make_ensemble(models, device)
    data = data_of_checkpoint(models[0], settings.data, overrides)
    for file in data.prepared.source.files("test"):
        check_different(**{"data.test": file, "output": output})
    scores = token_log_probs(ensemble, data, device, settings.workers)
    pairs = zip(data.prepared.pairs["test"], scores, strict=True)
    with output_or_stdout(output) as file:
        write_lines(file, ["\t".join(COLUMNS) + "\n", *(format_line(*one) for one in pairs)])


def format_line(pair: Pair, scores: Sequence[float]) -> str:
    """Return the line of a pair, given the log-probabilities of its target's tokens."""
    numbers = [[sum(scores)], [sum(scores) / len(scores)], scores]
    cells = [as_cell(pair.source), as_cell(pair.target), *(" ".join(f"{one:.4f}" for one in part) for part in numbers)]
    return "\t".join(cells) + "\n"


def token_log_probs(
    ensemble: Ensemble, data: PairsDataModule, device: torch.device, workers: Workers = 0
) -> list[list[float]]:
    """Return the log-probability of each target token and of the end, for each test pair in the order of the data."""
    loader = data.test_dataloader()
    batches = list(loader.sampler)
    results = Results(ensemble, device, loader.dataset.__getitem__, partial(score_batch, ensemble))
    scores = {}
    for indices, found in zip(batches, Inference(results, workers)(batches), strict=True):
        scores.update(zip(indices, found, strict=True))
    return [scores[index] for index in range(len(scores))]


def score_batch(ensemble: Ensemble, _: Any, batch: Batch, encoded: EnsembleEncoded) -> list[list[float]]:  # noqa: ANN401
    """Return the log-probability of each target token and of the end, for each pair of a batch."""
    log_probs, _ = ensemble.decode(batch.inputs, encoded)
    chosen = log_probs.gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1)  # (B, T)
    return [row[:length] for row, length in zip(chosen.tolist(), batch.target_lengths.tolist(), strict=True)]
