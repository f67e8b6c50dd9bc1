"""Train a model: from a composed config to the files of a run."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EMAWeightAveraging
from rich.console import Console

from seq2seq.api import Predictor, make_ensemble
from seq2seq.commands.evaluate import evaluate_split
from seq2seq.data import PairsDataModule
from seq2seq.decoding import Greedy
from seq2seq.errors import UserError, check_choice, check_count, check_flag, check_keys, check_mapping, check_number
from seq2seq.metrics.corpus import MONITOR
from seq2seq.reporting.plots import HEATMAP_LIMIT, attention_heatmap, learning_curves, save
from seq2seq.reporting.tables import Result, show_groups, show_metrics, show_predictions, write_predictions
from seq2seq.runs.directory import CONFIG, METRICS, finished, lock_run_dir, refuse_used
from seq2seq.runs.files import write_json
from seq2seq.training.build import (
    MATMUL_PRECISIONS,
    TRAINER_CONTENT,
    build_loggers,
    build_trainer,
    check_model,
    matmul_precision,
    resolve_config,
    silence_expected_warnings,
)
from seq2seq.training.callbacks import BatchSeed, ExactMatchStopping, RunCheckpoint
from seq2seq.training.checkpoints import load_module, read_checkpoint
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.resume import check_resumable, keep_logged_rows

log = logging.getLogger(__name__)

SECTIONS = {
    "": ["data", "model", "handoff", "logger", "trainer", "optimizer", "early_stopping", "search", "seed", "resume",
         "fast", "skip_finished", "label_smoothing", "scheduled_sampling", "weight_averaging", "matmul_precision"],
    "optimizer": ["lr", "warmup", "weight_decay"],
    "early_stopping": ["patience"],
    "search": ["max_length"],
}  # fmt: skip
"""The keys of a training config. The keys of other sections are checked where they are read."""

HEATMAPS = 4
"""Number of test pairs whose attention is drawn."""


def train(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train, test the best checkpoint, and leave the results in ``output_dir``.

    Args:
        config: Composed from ``configs/train.yaml``.
        output_dir: The run's directory; it must not hold a run, unless this one resumes it.
        overrides: Overrides of the command line, kept beside the config.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: If a setting or a file is not valid; nothing has been trained or written then.
        SystemExit: With code 130 if the user interrupts.
    """
    silence_expected_warnings()
    settings = resolve_config(config)
    check_settings(settings)
    resume = settings["resume"]
    skip = check_flag("skip_finished", settings["skip_finished"])
    if skip and (content := finished(output_dir, settings)):
        log.info("%s is finished already", output_dir)
        return content
    if not skip:
        refuse_used(output_dir, resume)
    seed = check_count("seed", settings["seed"], minimum=0, maximum=2**32 - 1)
    pl.seed_everything(seed, workers=True, verbose=False)
    saved = read_checkpoint(resume, "resume") if resume else {"epoch": -1, "global_step": 0}
    data = PairsDataModule(settings["data"], seed=seed, first_epoch=saved["epoch"] + 1)
    data.setup()
    module = build_module(settings, data)
    precision = check_choice("matmul_precision", settings["matmul_precision"], MATMUL_PRECISIONS)
    decay = check_number("weight_averaging", settings["weight_averaging"], 0, 1)
    if resume:
        check_resumable(module.hparams, saved, resume, averaging=decay > 0)
    check_end(settings["trainer"], data.first_epoch, batches=len(data.train_dataloader()))
    resumed_from = Path(resume).expanduser().parent if resume else None
    best = RunCheckpoint(output_dir, "best", MONITOR, resumed_from)
    last = RunCheckpoint(output_dir, "last", None, resumed_from)
    stopping = ExactMatchStopping(check_count("early_stopping.patience", settings["early_stopping"]["patience"]))
    loggers = build_loggers(config.logger, output_dir)
    averaging = [EMAWeightAveraging(decay=decay)] if decay else []
    trainer = build_trainer(config.trainer, output_dir, [BatchSeed(seed), *averaging, stopping, best, last], loggers)

    with lock_run_dir(output_dir, settings, overrides, resume=resume, anew=skip):
        keep_logged_rows(loggers, output_dir, saved["global_step"])
        for logger in loggers:
            logger.log_hyperparams(settings)
        log.info("%s", describe(module, data))
        with checkpoints_named_on_interrupt(output_dir):
            start = time.monotonic()
            with matmul_precision(precision):
                trainer.fit(module, data, ckpt_path=resume, weights_only=True)
            seconds = time.monotonic() - start
            if not best.path.exists():
                raise UserError("trainer: training ended before the first validation: there is no checkpoint to test")
            return finish(output_dir, trainer, load_module(str(best.path)), data, seconds)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise if the config has unknown keys or lacks one."""
    for section, keys in SECTIONS.items():
        check_keys(section, settings[section] if section else settings, keys)
    check_model(settings["model"])


def build_module(settings: dict[str, Any], data: PairsDataModule) -> Seq2SeqModule:
    """Build the module for the vocabularies of the data."""
    max_length = settings["search"]["max_length"]
    if max_length is None:
        max_length = 2 * int(data.dataset("train").targets.lengths.max())
    return Seq2SeqModule(
        model=settings["model"],
        handoff=settings["handoff"],
        optimizer=settings["optimizer"],
        label_smoothing=settings["label_smoothing"],
        scheduled_sampling=settings["scheduled_sampling"],
        source_tokenizer=data.source_tokenizer.to_dict(),
        target_tokenizer=data.target_tokenizer.to_dict(),
        max_length=max_length,
        data=data.source.to_dict(),
        fast=settings["fast"],
    )


def check_end(trainer: dict[str, Any], done: int, batches: int) -> None:
    """Raise if training never stops, or stops before the first checkpoint.

    Args:
        trainer: The section ``trainer`` of the config.
        done: Number of epochs that are already done.
        batches: Number of batches in an epoch.

    Raises:
        UserError: In either case.
    """
    check_mapping("trainer", trainer, TRAINER_CONTENT)
    epochs = check_count("trainer.max_epochs", trainer.get("max_epochs"), minimum=-1)
    steps = check_count("trainer.max_steps", trainer.get("max_steps", -1), minimum=-1)
    if epochs == steps == -1:
        raise UserError(
            "trainer.max_epochs=-1 sets no end, and the learning rate falls to zero at the end; "
            "give a number of epochs, or trainer.max_steps"
        )
    batches_per_step = check_count("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches", 1))
    next_validation = (done + 1) * math.ceil(batches / batches_per_step)
    if 0 <= steps < next_validation:
        raise UserError(
            f"trainer.max_steps={steps} ends before the next validation, after step {next_validation}; "
            "nothing would be kept"
        )
    if epochs == 0:
        raise UserError("trainer.max_epochs=0 must be at least 1, or -1 with trainer.max_steps")
    if 0 < epochs <= done:
        raise UserError(f"trainer.max_epochs={epochs} must be above the {done} epochs that are already done")


def describe(module: Seq2SeqModule, data: PairsDataModule) -> str:
    """Return one line about data and model."""
    symbols = (len(tokenizer.vocabulary) for tokenizer in (module.source_tokenizer, module.target_tokenizer))
    pairs = len(data.dataset("train"))
    return "{} training pairs, {} source and {} target symbols, {} parameters".format(
        pairs, *symbols, count_parameters(module)
    )


def count_parameters(module: Seq2SeqModule) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def checkpoints_named_on_interrupt(output_dir: Path) -> Iterator[None]:
    """Turn Ctrl-C into exit code 130, and log which checkpoints are kept."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns the interrupt into an exit of its own.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        kept = [str(path) for path in (output_dir / "best.ckpt", output_dir / "last.ckpt") if path.exists()]
        if kept:
            log.error("interrupted; kept: %s; continue with resume=%s", ", ".join(kept), kept[-1])
        else:
            (output_dir / CONFIG).unlink(missing_ok=True)  # the directory may be used again
            log.error("interrupted; kept: no checkpoint, as no epoch was complete")
        raise SystemExit(130) from None


def finish(
    output_dir: Path, trainer: pl.Trainer, module: Seq2SeqModule, data: PairsDataModule, seconds: float
) -> dict[str, Any]:
    """Evaluate the best checkpoint; write, print and draw the results; return the content of ``metrics.json``."""
    device, search = trainer.strategy.root_device, Greedy(module.max_length)
    module.model = trainer.precision_plugin.convert_module(module.model)  # pyright: ignore[reportAttributeAccessIssue]
    ensemble = make_ensemble([module], device)
    with trainer.precision_plugin.forward_context():
        results = {
            "validation": evaluate_split(ensemble, search, data, "val", device),
            "test": evaluate_split(ensemble, search, data, "test", device),
        }
    content = {split: result.to_dict() for split, result in results.items()} | {
        "handoff": module.hparams["handoff"],
        "parameters": count_parameters(module),
        "seconds": round(seconds, 1),
        "best_checkpoint": str((output_dir / "best.ckpt").absolute()),
    }
    write_predictions(output_dir / "predictions.tsv", results["test"].predictions)
    write_json(output_dir / METRICS, content)
    console = Console()
    show_metrics(console, results)
    show_groups(console, results["test"])
    show_predictions(console, results["test"])
    summary = f"{count_parameters(module):,} parameters, {seconds:.0f} s of training"
    console.print(f"{summary}; best checkpoint: {content['best_checkpoint']}", soft_wrap=True, markup=False)
    draw(output_dir, module, results["test"])
    return content


def draw(output_dir: Path, module: Seq2SeqModule, test: Result) -> None:
    """Draw the learning curves, and the attention for a few test pairs that are not too long, misses first."""
    metrics = output_dir / "metrics.csv"
    if metrics.exists():
        save(learning_curves(metrics), output_dir / "learning_curves.png")
    predictor = Predictor([module])
    drawn = 0
    for pair in test.misses_first():
        if drawn == HEATMAPS:
            return
        source, target = (
            module.source_tokenizer.tokenize(pair.source),
            module.target_tokenizer.tokenize(pair.prediction),
        )
        if max(len(source), len(target)) > HEATMAP_LIMIT:
            continue
        alignment = predictor.align(pair.source, predictor.n_best([pair.source])[0][0])
        if alignment is None:
            log.info("model.attention=none: there are no attention weights to draw")
            return
        drawn += 1
        save(attention_heatmap(alignment), output_dir / f"attention_{drawn}.png")
