"""Evaluate a checkpoint: metrics and predictions on the test split."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from rich.console import Console
from torchmetrics import MetricCollection

from seq2seq.api import find_device, load_models, make_ensemble
from seq2seq.data import SPECIALS, UNK, PairDataset, PairsDataModule, Split
from seq2seq.decoding import Ensemble, Search, build_search, infer
from seq2seq.errors import UserError
from seq2seq.handoff.ablation import KEPT, AlteredBridge
from seq2seq.metrics.text import CorpusMetric
from seq2seq.metrics.tokens import closest
from seq2seq.model import TrainedModel
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
from seq2seq.reporting.tables import (
    Prediction,
    Result,
    show_groups,
    show_metrics,
    show_predictions,
    write_predictions,
)
from seq2seq.runs.directory import refuse_used
from seq2seq.runs.files import write_json
from seq2seq.schema import check
from seq2seq.settings import resolve_config
from seq2seq.training.build import build_metrics
from seq2seq.training.evaluation import decoder_of, update_metrics

log = logging.getLogger(__name__)


class EvaluateSettings:
    """The keys of ``configs/evaluate.yaml``."""

    checkpoint: Any
    data: Any
    search: Any
    metrics: Any
    state: Literal["kept", "zeroed", "shuffled"]
    device: str
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]


OVERRIDABLE = (
    "test", "source_column", "target_column", "header", "comment", "merge_references", "batch_size", "batch_tokens",
)  # fmt: skip
"""Keys of ``data`` that may be given on the command line; the checkpoint fixes the others."""

OF_TOKENIZERS = (
    "source_tokens", "target_tokens", "normalization", "lower_case", "shared_vocabulary", "min_count", "max_symbols",
)  # fmt: skip
"""Keys of ``data`` that the checkpoint fixes even if the data come from another source."""

FILES = ("tsv", "parallel")
"""Sources of data that a checkpoint can be evaluated on, whatever it was trained on."""

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Names of precisions, as in Lightning, to the type in which matrices are multiplied; None for that of the weights."""


def evaluate(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, print the results and write them to ``output_dir``.

    Raises:
        UserError: If the checkpoint, a file or a setting is not valid.
    """
    settings = resolve_config(config)
    check("", {"data": None} | settings, EvaluateSettings)
    refuse_used(output_dir)
    metrics = build_metrics(config.metrics)
    state, dtype = settings["state"], PRECISIONS[settings["precision"]]
    device = find_device(settings["device"])
    modules = load_models(settings["checkpoint"])
    if settings["search"].get("n_best") != 1:
        raise UserError(
            f"search.n_best={settings['search'].get('n_best')} must be 1 here: only the best prediction is evaluated"
        )
    module = modules[0]
    search = build_search(settings["search"], module.max_length, len(module.target_tokenizer.vocabulary))
    ensemble = make_ensemble(modules, device)
    if state != KEPT:
        ensemble = Ensemble([alter_state(one.model, state) for one in modules]).to(device).eval()
        log.warning("state=%s: these are not the results of the model as it was trained", state)
    data = data_of_checkpoint(module, settings.get("data"), overrides)
    with torch.autocast(device.type, dtype) if dtype else nullcontext():
        result = evaluate_test(ensemble, search, data, metrics, device)
    alone = sum(getattr(model.bridge, "alone", 0) for model in ensemble.models)
    if alone:
        log.warning("%d sequences were alone in their batch and kept their own state", alone)
    cases = make_cases(result, data)
    bins = {"by_source_length": by_length(cases), "by_rarest_symbol": by_rarest(cases)}
    content = {
        "test": result.to_dict(),
        **{name: [one._asdict() for one in found] for name, found in bins.items()},
        "state": state,
        "handoff": module.settings["handoff"],
        "search": settings["search"],
        "checkpoint": settings["checkpoint"],
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    write_predictions(output_dir / "predictions.tsv", result.predictions)
    write_errors(output_dir / "errors.tsv", cases)
    write_confusions(output_dir / "confusions.tsv", confusions(cases))
    save(error_picture(cases), output_dir / "errors.png")
    write_json(output_dir / "metrics.json", content)
    console = Console()
    show_metrics(console, {"test" if state == KEPT else f"test, state {state}": result})
    show_groups(console, result)
    show_predictions(console, result)
    console.print(f"written to {output_dir}", soft_wrap=True, markup=False)
    return content


def alter_state(model: Seq2Seq, state: str) -> Seq2Seq:
    """Return the model with an `AlteredBridge`."""
    return Seq2Seq(model.encoder, AlteredBridge(model.bridge, state), model.decoder)


def evaluate_test(
    ensemble: Ensemble, search: Search, data: PairsDataModule, metrics: MetricCollection, device: torch.device
) -> Result:
    """Evaluate a model on the test split by free-running decoding and under teacher forcing.

    Args:
        ensemble: In evaluation mode, on ``device``.
        search: How to decode.
        data: With the tokenizers of the model.
        metrics: Metrics to compute.
        device: Where to compute.
    """
    metrics, predictions = metrics.to(device), {}
    for batch, decoded in infer(ensemble, data.test_dataloader(), device, decoder_of(ensemble, search)):
        indices = batch.indices.tolist()
        update_metrics(metrics, batch, decoded, data.references("test", indices), data.target_tokenizer)
        predictions.update(zip(indices, decoded[0], strict=True))
    return make_result(metrics, predictions, data, "test")


def make_result(
    metrics: MetricCollection, decoded: Mapping[int, list[int]], data: PairsDataModule, split: Split, part: str = ""
) -> Result:
    """Return metrics and predictions of a split, given the decoded ids by the index of the pair."""
    pairs = data.pairs(split)
    predictions = []
    for index, ids in sorted(decoded.items()):
        pair, correct = pairs[index], ids in data.references(split, [index]).ids[0]
        text = data.target_tokenizer.decode(ids)
        predictions.append(Prediction(pair.source, text, tuple(pair.references), correct, pair.group))
    values = {str(name): float(value) for name, value in metrics.compute().items()}
    signed = {str(name): metric for name, metric in metrics.items() if isinstance(metric, CorpusMetric)}
    signatures = {name: metric.signature for name, metric in signed.items()}
    return Result(values, predictions, data.source.group_name, part, signatures)


def make_cases(result: Result, data: PairsDataModule) -> list[Case]:
    """Return the predictions of the test split in tokens, for the analysis of errors."""
    sources, tokens = data.dataset("test").sources, data.target_tokenizer.tokens
    cases = []
    for index, prediction in enumerate(result.predictions):
        ids = sources[index]
        predicted = tokens(prediction.prediction)
        reference = closest(predicted, map(tokens, prediction.references))
        rank = None if UNK in ids else max(ids) - len(SPECIALS) + 1
        cases.append(Case(prediction, len(ids), rank, predicted, reference))
    return cases


def data_of_checkpoint(module: TrainedModel, given: dict[str, Any] | None, overrides: Sequence[str]) -> PairsDataModule:
    """Read the test split that a checkpoint is used on, with the checkpoint's tokenizers.

    Args:
        module: The trained model.
        given: ``data`` of the composed config; None for that of the checkpoint.
        overrides: Overrides of the command line.

    Raises:
        UserError: If a setting or a file is not valid.
    """
    data = PairsDataModule(
        merge_data(module.settings["data"], given, overrides),
        source_tokenizer=module.settings["source_tokenizer"],
        target_tokenizer=module.settings["target_tokenizer"],
    )
    data.setup("test")
    warn_of_unknown(data.dataset("test"))
    return data


def merge_data(trained: dict[str, Any], given: dict[str, Any] | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the data to evaluate on.

    Args:
        trained: ``data`` of the checkpoint.
        given: ``data`` of the composed config; None without ``data=``.
        overrides: Overrides of the command line. With the task of the checkpoint, only the keys that they name are
            replaced.

    Raises:
        UserError: If they name a key that the checkpoint fixes.
    """
    if given is None:
        return trained
    task, own = given.get("task"), trained["task"]
    if task not in (*FILES, own):
        raise UserError(
            f"data={task} cannot be given here: the checkpoint was trained on {own}; "
            f"use {' or '.join(FILES)}, or leave it out"
        )
    named = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key in sorted(name.removeprefix("data.") for name in named if name.startswith("data.")):
        if key not in OVERRIDABLE:
            raise UserError(
                f"data.{key}={given.get(key)} cannot be given here: the checkpoint fixes it; "
                f"what can be given is {', '.join(key for key in OVERRIDABLE if key in given)}"
            )
    if task != own:
        return given | {key: trained[key] for key in OF_TOKENIZERS if key in trained}
    return trained | {key: given[key] for key in OVERRIDABLE if f"data.{key}" in named}


def warn_of_unknown(dataset: PairDataset) -> None:
    """Log the share of tokens that are not in the vocabulary, if there are any."""
    for side, sequences in (("source", dataset.sources), ("target", dataset.targets)):
        share = float((sequences.ids == UNK).float().mean())
        if share > 0:
            log.warning("%.1f %% of the %s tokens are not in the vocabulary of the checkpoint", 100 * share, side)
