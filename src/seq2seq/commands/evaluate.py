"""A trained model on a split: its metrics and its predictions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from rich.console import Console

from seq2seq.api import check_one_vocabulary, load_modules
from seq2seq.data.datamodule import PairsDataModule
from seq2seq.data.dataset import Corpus
from seq2seq.data.sources import Split, build_task
from seq2seq.data.vocabulary import UNK
from seq2seq.decoding.search import build_search
from seq2seq.errors import UserError, check_choice, check_keys
from seq2seq.handoff.ablation import KEPT, STATES, AlteredBridge
from seq2seq.reporting.tables import (
    Prediction,
    Result,
    show_groups,
    show_metrics,
    show_predictions,
    write_json,
    write_predictions,
)
from seq2seq.runs.directory import refuse_used
from seq2seq.training.build import build_trainer, keep_quiet, plain
from seq2seq.training.module import Seq2SeqModule

log = logging.getLogger(__name__)

GIVEN = ("test", "source_column", "target_column", "batch_size")
"""Settings of a task that the command line may give; the checkpoint fixes the others with its vocabularies."""


def evaluate_split(trainer: pl.Trainer, module: Seq2SeqModule, data: PairsDataModule, split: Split) -> Result:
    """Judge a model on a split by real decoding and under teacher forcing.

    Args:
        trainer: Without a logger.
        module: The trained model; its codecs are those of ``data``.
        data: Where the split comes from.
        split: ``val`` or ``test``.
    """
    logged = trainer.test(module, dataloaders=data.loader(split), verbose=False)[0]
    metrics = {name.removeprefix("test/"): value for name, value in logged.items()}
    predictions = []
    for row, pair in enumerate(data.pairs(split)):
        ids = module.predictions[row]
        correct = ids == module.target.encode(pair.target)
        predictions.append(Prediction(pair.source, module.target.decode(ids), pair.target, correct, pair.group))
    return Result(metrics, predictions, data.task.group_name)


def merge_data(trained: dict[str, Any], given: dict[str, Any] | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the task to evaluate on.

    Args:
        trained: Those of the checkpoint.
        given: ``data`` of the composed config; None without ``data=``.
        overrides: Of the command line; of a task that is the checkpoint's own, only what they name replaces it.

    Raises:
        UserError: If they name something that the checkpoint fixes.
    """
    if given is None:
        return trained
    task, own = given.get("task"), trained["task"]
    if task not in ("tsv", own):
        raise UserError(
            f"data={task} cannot be given here: the checkpoint was trained on {own}; use tsv or leave it out"
        )
    named = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key in sorted(name.removeprefix("data.") for name in named if name.startswith("data.")):
        if key not in GIVEN:
            raise UserError(
                f"data.{key}={given.get(key)} cannot be given here: the checkpoint fixes it; "
                f"what can be given is {', '.join(GIVEN)}"
            )
    if task != own:
        return given | {key: trained[key] for key in ("source_tokens", "target_tokens", "min_count")}
    return trained | {key: given[key] for key in GIVEN if f"data.{key}" in named}


def warn_of_unknown(corpus: Corpus) -> None:
    """Log how many tokens of a file the checkpoint has never seen, if there are any."""
    for side, sequences in (("source", corpus.sources), ("target", corpus.targets)):
        share = float((sequences.ids == UNK).float().mean())
        if share > 0:
            log.warning("%.1f %% of the %s tokens are unknown to the checkpoint", 100 * share, side)


def evaluate(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, print the results and write them to ``output_dir``.

    Raises:
        UserError: If the checkpoint, a file or a setting is not what it must be.
    """
    keep_quiet()
    settings = plain(config)
    check_keys("", {"data": None} | settings, ["checkpoint", "data", "search", "state", "trainer"])
    refuse_used(output_dir)
    modules = load_modules(settings["checkpoint"])
    check_one_vocabulary(modules)
    module = modules[0]
    state = check_choice("state", settings["state"], STATES)
    if state != KEPT:
        for one in modules:
            one.model.bridge = AlteredBridge(one.model.bridge, state)
        log.warning("state=%s: these are not the results of the model as it was trained", state)
    if settings["search"].get("n_best") != 1:
        raise UserError(f"search.n_best={settings['search'].get('n_best')} must be 1 here: the best one is judged")
    module.search = build_search(settings["search"], module.max_length, len(module.target.vocabulary))
    module.others.extend(one.model for one in modules[1:])
    task = build_task(merge_data(module.hparams["data"], settings.get("data"), overrides))
    data = PairsDataModule(task, seed=0, codecs=(module.source, module.target))
    warn_of_unknown(data.corpus("test"))  # and a file's mistakes are found before anything starts
    result = evaluate_split(build_trainer(config.trainer, output_dir), module, data, "test")
    if isinstance(module.model.bridge, AlteredBridge) and module.model.bridge.alone:
        log.warning("%d rows were alone in their batch and kept their own state", module.model.bridge.alone)
    console = Console()
    show_metrics(console, {"test" if state == KEPT else f"test, state {state}": result})
    show_groups(console, result)
    show_predictions(console, result)
    content = {
        "test": result.to_plain(),
        "state": state,
        "handoff": module.hparams["handoff"],
        "search": settings["search"],
        "checkpoint": settings["checkpoint"],
    }
    write_predictions(output_dir / "predictions.tsv", result.predictions)
    write_json(output_dir / "metrics.json", content)
    console.print(f"written to {output_dir}", soft_wrap=True, markup=False)
    return content
