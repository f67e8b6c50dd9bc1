"""Evaluate a checkpoint: metrics and predictions on the test split."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from seq2seq.api import Predictor, Vote, load_models, make_ensemble
from seq2seq.data import SPECIALS, UNK, PreparedData
from seq2seq.decoding import build_search
from seq2seq.errors import UserError, about_setting
from seq2seq.handoff.ablation import KEPT, AlteredBridge
from seq2seq.metrics.tokens import closest
from seq2seq.reporting import errors
from seq2seq.reporting.plots import save
from seq2seq.reporting.tables import Result, show_groups, show_metrics, show_predictions, write_predictions
from seq2seq.runs.directory import METRICS, PREDICTIONS, refuse_used
from seq2seq.runs.files import write_json
from seq2seq.settings import CommandSettings, read_settings, resolve_config
from seq2seq.training.build import build_metrics, build_trainer
from seq2seq.training.evaluation import Evaluation, VoteEvaluation, result_of
from seq2seq.training.evaluation_data import data_of_checkpoint

log = logging.getLogger(__name__)


class EvaluateSettings(CommandSettings):
    """The keys of ``configs/evaluate.yaml``."""

    checkpoint: str | list[str]
    data: dict[str, Any] | None = None
    search: dict[str, Any]
    metrics: dict[str, Any]
    trainer: dict[str, Any]
    vote: bool
    state: Literal["kept", "zeroed", "shuffled"]


TRAINER = (
    "_target_", "accelerator", "strategy", "devices", "num_nodes", "precision", "limit_test_batches",
    "enable_progress_bar", "enable_model_summary", "profiler", "detect_anomaly", "deterministic", "benchmark",
)  # fmt: skip
"""Keys of ``trainer`` that evaluation reads; the others are for training."""

MOVED = {"device": "trainer=cpu, or trainer=gpu and trainer.devices", "precision": "trainer.precision"}
"""Keys that other commands have, and what to give here."""


def evaluate(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, print the results and write them to ``output_dir``.

    Raises:
        UserError: If the checkpoint, a file or a setting is not valid.
    """
    config = for_evaluation(config, overrides)
    settings = read_settings(EvaluateSettings, resolve_config(config))
    refuse_used(output_dir)
    metrics = build_metrics(config.metrics)
    models, state = load_models(settings.checkpoint), settings.state
    first = models[0]
    if settings.vote:
        first = first._replace(tokenizers=first.tokenizers.with_open_target())
    data = data_of_checkpoint(first, settings.data, overrides)
    searches = [build_search(settings.search, one.max_length, one.target_size, only_best=True) for one in models]
    if settings.vote:
        vote = Vote([Predictor([one], search=search) for one, search in zip(models, searches, strict=True)])
        texts = [pair.source for pair in data.prepared.source.pairs("test")]
        module = VoteEvaluation(vote, metrics, first.tokenizers.target, texts)
    else:
        module = Evaluation(searches[0], metrics, first.tokenizers.target)
        module.ensemble = make_ensemble(models, torch.device("cpu"))
    if state != KEPT:
        log.warning("state=%s: these are not the results of the model as it was trained", state)
        for model in models:
            model.model.bridge = AlteredBridge(model.model.bridge, state)
    trainer = build_trainer(config.trainer, output_dir)
    if settings.vote and trainer.world_size > 1:
        raise UserError(f"trainer.devices: vote=true evaluates in one process, and not in {trainer.world_size}")
    with about_setting("trainer", whole_run=True):
        trainer.test(module, datamodule=data, verbose=False)
    result = result_of(module, data, "test")
    if alone := sum(getattr(model.model.bridge, "alone", 0) for model in models):
        log.warning("%d sequences were alone in their batch and kept their own state", alone)
    cases = make_cases(result, data.prepared)
    bins = {"by_source_length": errors.by_length(cases), "by_rarest_symbol": errors.by_rarest(cases)}
    content = {
        "test": result.to_dict(),
        **{name: [one._asdict() for one in found] for name, found in bins.items()},
        "state": state,
        "handoff": first.settings["handoff"],
        "search": settings.search,
        "vote": settings.vote,
        "checkpoint": settings.checkpoint,
    }
    if trainer.is_global_zero:
        write(output_dir, result, cases, content)
    return content


def for_evaluation(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the config with those keys of ``trainer`` that evaluation reads; refuse others on the command line."""
    for key, instead in MOVED.items():
        if config[key] is not None:
            raise UserError(f"{key}={config[key]} is the trainer's here: give {instead}")
    for name in (override.lstrip("+~").partition("=")[0] for override in overrides):
        if name.startswith("trainer.") and name.removeprefix("trainer.") not in TRAINER:
            raise UserError(f"{name} is for training; what can be given here is {', '.join(TRAINER[1:])}")
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key not in MOVED])
    kept.trainer = OmegaConf.masked_copy(config.trainer, list(TRAINER))
    return kept


def write(output_dir: Path, result: Result, cases: list[errors.Case], content: dict[str, Any]) -> None:
    """Write and print the results."""
    output_dir.mkdir(parents=True, exist_ok=True)
    write_predictions(output_dir / PREDICTIONS, result.predictions)
    errors.write_errors(output_dir / "errors.tsv", cases)
    errors.write_confusions(output_dir / "confusions.tsv", errors.confusions(cases))
    save(errors.error_picture(cases), output_dir / "errors.png")
    write_json(output_dir / METRICS, content)
    console = Console()
    state = content["state"]
    show_metrics(console, {"test" if state == KEPT else f"test, state {state}": result})
    show_groups(console, result)
    show_predictions(console, result)
    console.print(f"written to {output_dir}", soft_wrap=True, markup=False)


def make_cases(result: Result, data: PreparedData) -> list[errors.Case]:
    """Return the predictions of the test split in tokens, for the analysis of errors."""
    sources, tokens = data.datasets["test"].sources, data.tokenizers.target.tokens
    cases = []
    for index, prediction in enumerate(result.predictions):
        ids = sources[index]
        predicted = tokens(prediction.prediction)
        reference = closest(predicted, map(tokens, prediction.references))
        rank = None if UNK in ids else max(ids) - len(SPECIALS) + 1
        cases.append(errors.Case(prediction, len(ids), rank, predicted, reference))
    return cases
