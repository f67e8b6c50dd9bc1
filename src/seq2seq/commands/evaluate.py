"""Evaluate a checkpoint: metrics and predictions on the test split."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from rich.console import Console

from seq2seq.api import load_models, make_ensemble
from seq2seq.data import SPECIALS, UNK, PreparedData
from seq2seq.decoding import build_search
from seq2seq.errors import UserError, about_setting
from seq2seq.handoff.ablation import KEPT, AlteredBridge
from seq2seq.metrics.tokens import closest
from seq2seq.nn import Seq2Seq
from seq2seq.reporting.errors import (
    Case,
    by_length,
    by_rarest,
    confusions,
    error_picture,
    write_confusions,
    write_errors,
)
from seq2seq.reporting.plots import save
from seq2seq.reporting.tables import Result, show_groups, show_metrics, show_predictions, write_predictions
from seq2seq.runs.directory import refuse_used
from seq2seq.runs.files import write_json
from seq2seq.settings import Settings, read_settings, resolve_config
from seq2seq.training.build import build_metrics, build_trainer, silence_expected_warnings
from seq2seq.training.checkpoint_data import data_of_checkpoint
from seq2seq.training.evaluation import EnsembleEvaluation, part_used, result_of

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


class EvaluateSettings(Settings):
    """The keys of ``configs/evaluate.yaml``."""

    checkpoint: str | list[str]
    data: dict[str, Any] | None = None
    search: dict[str, Any]
    metrics: dict[str, Any]
    trainer: dict[str, Any]
    state: Literal["kept", "zeroed", "shuffled"]


TRAINER = (
    "_target_", "accelerator", "strategy", "devices", "num_nodes", "precision", "limit_test_batches",
    "enable_progress_bar", "enable_model_summary", "profiler", "detect_anomaly", "deterministic", "benchmark",
)  # fmt: skip
"""Keys of ``trainer`` that evaluation reads; the others are for training."""

MOVED = {"device": "trainer=cpu or trainer=gpu", "precision": "trainer.precision"}
"""Keys that other commands have, and what to give here."""


def evaluate(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, print the results and write them to ``output_dir``.

    Raises:
        UserError: If the checkpoint, a file or a setting is not valid.
    """
    silence_expected_warnings()
    config = for_evaluation(config, overrides)
    values = resolve_config(config)
    settings = read_settings(EvaluateSettings, values)
    refuse_used(output_dir)
    metrics = build_metrics(config.metrics)
    models = load_models(values["checkpoint"])
    first, state = models[0], settings.state
    if settings.search.get("n_best") != 1:
        raise UserError(
            f"search.n_best={settings.search.get('n_best')} must be 1 here: only the best prediction is evaluated"
        )
    search = build_search(settings.search, first.max_length, first.target_size)
    networks = list(make_ensemble(models, CPU).models)
    if state != KEPT:
        networks = [alter_state(one.model, state) for one in models]
        log.warning("state=%s: these are not the results of the model as it was trained", state)
    data = data_of_checkpoint(first, values.get("data"), overrides)
    module = EnsembleEvaluation(networks, search, metrics, first.target_tokenizer)
    trainer = build_trainer(config.trainer, output_dir, callbacks=[], loggers=[])
    with about_setting("trainer", whole_run=True):
        trainer.test(module, datamodule=data, verbose=False)
    result = result_of(module, data, "test", part_used(trainer, data, "test"))
    alone = sum(getattr(model.bridge, "alone", 0) for model in networks)
    if alone:
        log.warning("%d sequences were alone in their batch and kept their own state", alone)
    cases = make_cases(result, data.prepared)
    bins = {"by_source_length": by_length(cases), "by_rarest_symbol": by_rarest(cases)}
    content = {
        "test": result.to_dict(),
        **{name: [one._asdict() for one in found] for name, found in bins.items()},
        "state": state,
        "handoff": first.settings["handoff"],
        "search": settings.search,
        "checkpoint": values["checkpoint"],
    }
    if trainer.is_global_zero:
        write(output_dir, result, cases, content)
    return content


def for_evaluation(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the config with those keys of ``trainer`` that evaluation reads.

    Raises:
        UserError: If the command line names another one.
    """
    for key, instead in MOVED.items():
        if config[key] is not None:
            raise UserError(f"{key}={config[key]} is the trainer's here: give {instead}")
    for name in (override.lstrip("+~").partition("=")[0] for override in overrides):
        if name.startswith("trainer.") and name.removeprefix("trainer.") not in TRAINER:
            raise UserError(f"{name} is for training; what can be given here is {', '.join(TRAINER[1:])}")
    trainer = {key: value for key, value in config.trainer.items_ex(resolve=False) if key in TRAINER}
    rest = {key: config._get_node(key) for key in config if key not in (*MOVED, "trainer")}  # noqa: SLF001
    return DictConfig({**rest, "trainer": trainer})


def write(output_dir: Path, result: Result, cases: list[Case], content: dict[str, Any]) -> None:
    """Write and print the results."""
    output_dir.mkdir(parents=True, exist_ok=True)
    write_predictions(output_dir / "predictions.tsv", result.predictions)
    write_errors(output_dir / "errors.tsv", cases)
    write_confusions(output_dir / "confusions.tsv", confusions(cases))
    save(error_picture(cases), output_dir / "errors.png")
    write_json(output_dir / "metrics.json", content)
    console = Console()
    state = content["state"]
    show_metrics(console, {"test" if state == KEPT else f"test, state {state}": result})
    show_groups(console, result)
    show_predictions(console, result)
    console.print(f"written to {output_dir}", soft_wrap=True, markup=False)


def alter_state(model: Seq2Seq, state: str) -> Seq2Seq:
    """Return the model with an `AlteredBridge`."""
    return Seq2Seq(model.encoder, AlteredBridge(model.bridge, state), model.decoder).eval()


def make_cases(result: Result, data: PreparedData) -> list[Case]:
    """Return the predictions of the test split in tokens, for the analysis of errors."""
    sources, tokens = data.datasets["test"].sources, data.target_tokenizer.tokens
    cases = []
    for index, prediction in enumerate(result.predictions):
        ids = sources[index]
        predicted = tokens(prediction.prediction)
        reference = closest(predicted, map(tokens, prediction.references))
        rank = None if UNK in ids else max(ids) - len(SPECIALS) + 1
        cases.append(Case(prediction, len(ids), rank, predicted, reference))
    return cases
