"""Train a model: from a composed config to the files of a run."""

import logging
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from rich.console import Console

from seq2seq.api import Predictor
from seq2seq.checkpoint import read_checkpoint
from seq2seq.commands.evaluate import make_result
from seq2seq.data import PAD, UNK, PairsDataModule, Split
from seq2seq.errors import Stopped, UserError, check_choice, check_count, check_mapping
from seq2seq.handoff.picture import handoff_picture
from seq2seq.handoff.verification import verify
from seq2seq.reporting.plots import HEATMAP_LIMIT, attention_heatmap, learning_curves, save
from seq2seq.reporting.tables import Prediction, Result, show_groups, show_metrics, show_predictions, write_predictions
from seq2seq.reporting.trackers import TRACKERS, closed_at_the_end, send_results
from seq2seq.runs.directory import METRICS, finished, lock_run_dir, refuse_used
from seq2seq.runs.files import write_json
from seq2seq.schema import Bounds, Count, Fraction, check
from seq2seq.settings import resolve_config
from seq2seq.training.build import (
    TRAINER_CONTENT,
    MatmulPrecision,
    build_callbacks,
    build_loggers,
    build_metrics,
    build_optimizer,
    build_trainer,
    matmul_precision,
    silence_expected_warnings,
)
from seq2seq.training.callbacks import BatchSeed, StopSignals, WeightAveraging
from seq2seq.training.limits import check_limits
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.processes import FailedElsewhereError, freeze_unused, one_message
from seq2seq.training.resume import check_resumable, newest_checkpoint, restore_log
from seq2seq.training.saving import position

log = logging.getLogger(__name__)


class CheckpointSettings:
    """The keys of ``checkpoint``."""

    every_n_steps: Count | None
    every_minutes: Annotated[float, Bounds(0, math.inf)] | None


class TrainSettings:
    """The keys of ``configs/train.yaml``. Sections that are ``Any`` are checked where they are read."""

    data: Any
    model: Any
    optimizer: Any
    scheduler: Any
    search: Any
    metrics: Any
    callbacks: Any
    trainer: Any
    logger: Any
    seed: Annotated[int, Bounds(0, 2**32 - 1)]
    dataset: str | None
    resume: str | None
    checkpoint: CheckpointSettings
    label_smoothing: Fraction
    scheduled_sampling: Annotated[float, Bounds(0, math.nextafter(1, 2))]
    weight_averaging: Fraction
    fast: Any
    matmul_precision: MatmulPrecision
    monitor: str
    monitor_mode: Literal["max", "min"]
    optimized_metric: str
    handoff: str


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
        Stopped: When a signal has ended the run.
    """
    silence_expected_warnings()
    settings = resolve_config(config)
    check_settings(settings)
    automatic = settings["resume"] == "auto"
    if automatic:
        if content := finished(output_dir, settings):
            log.info("%s is finished already", output_dir)
            return content
        resume, saved = newest_checkpoint(output_dir)
        config = OmegaConf.merge(config, {"resume": resume})  # pyright: ignore[reportAssignmentType]
        settings = resolve_config(config)
    else:
        resume = settings["resume"]
        saved = read_checkpoint(resume, "resume") if resume else None
    refuse_used(output_dir, resume, anew=automatic)
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    epoch, batch = position(saved) if saved else (0, 0)
    data = PairsDataModule(settings["data"], seed=settings["seed"], first_epoch=epoch, first_batch=batch)
    data.setup()
    module = build_module(config, settings, data)
    if saved and resume:
        check_resumable(module, saved, resume, averaging=settings["weight_averaging"] > 0)
    check_end(settings["trainer"], epoch, batches=len(data.train_dataloader()))
    loggers = build_loggers(config.logger, output_dir)
    signals = StopSignals()
    callbacks = [signals, *make_callbacks(config, output_dir, has_logger=bool(loggers))]
    trainer = build_trainer(config.trainer, output_dir, callbacks, loggers, settings["monitor"])
    check_share(trainer.world_size, data)
    if isinstance(trainer.strategy, DDPStrategy):
        freeze_unused(module.model)

    with (
        lock_run_dir(output_dir, settings, overrides, resume=resume, anew=automatic)
        if trainer.is_global_zero
        else nullcontext(),
        checkpoints_named_when_stopped(output_dir),
        closed_at_the_end(loggers),
        one_message(trainer),
        signals,
    ):
        if trainer.is_global_zero:
            restore_log(loggers, saved or {})
        for logger in loggers:
            logger.log_hyperparams(settings)
        several = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
        log.info("%s%s", describe(module, data), several)
        start = time.monotonic()
        with matmul_precision(settings["matmul_precision"]), memory_named(module):
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        with memory_named(module):
            return finish(output_dir, trainer, module, data, seconds=time.monotonic() - start)


def train_for_sweeper(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> float | None:
    """Train, and return the value of ``optimized_metric`` for a Hydra sweeper; None if there is none."""
    content = train(config, output_dir, overrides)
    split, _, name = str(config.optimized_metric).partition("/")
    return content.get({"val": "validation"}.get(split, split), {}).get(name)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise if the config has unknown keys, lacks one, or has a value that nothing else checks.

    Raises:
        UserError: In any of these cases.
    """
    check("", settings, TrainSettings)
    check_limits("optimizer", settings["optimizer"], "a _target_ and its arguments")
    check_limits("trainer", settings["trainer"], TRAINER_CONTENT)
    check_mapping("metrics", settings["metrics"], "metrics by name")
    check_choice("monitor", settings["monitor"], [f"val/{name}" for name in settings["metrics"]])
    callbacks = settings["callbacks"]
    measured = ["train/loss", *(f"val/{name}" for name in settings["metrics"])]
    for name, entry in callbacks.items() if isinstance(callbacks, dict) else ():
        if isinstance(entry, dict) and "monitor" in entry:
            check_choice(f"callbacks.{name}.monitor", entry["monitor"], measured)
    if settings["callbacks"] and settings["trainer"].get("limit_val_batches") == 0:
        raise UserError("trainer.limit_val_batches=0 leaves no best checkpoint; give callbacks=none, too")
    choices = [f"{split}/{name}" for split in ("val", "test") for name in settings["metrics"]]
    check_choice("optimized_metric", settings["optimized_metric"], choices)
    if settings["search"].get("n_best") != 1:
        raise UserError(f"search.n_best={settings['search'].get('n_best')} must be 1: only the best one is evaluated")


def build_module(config: DictConfig, settings: dict[str, Any], data: PairsDataModule) -> Seq2SeqModule:
    """Build the module for the vocabularies of the data."""
    max_length = settings["search"].get("max_length")
    if max_length is None:
        max_length = 2 * int(data.dataset("train").targets.lengths.max())
    optimizer, scheduler = build_optimizer(config.optimizer, config.scheduler)
    module = Seq2SeqModule(
        model=settings["model"],
        handoff=settings["handoff"],
        label_smoothing=settings["label_smoothing"],
        scheduled_sampling=settings["scheduled_sampling"],
        source_tokenizer=data.source_tokenizer.to_dict(),
        target_tokenizer=data.target_tokenizer.to_dict(),
        max_length=max_length,
        data=data.source.to_dict(),
        fast=settings["fast"],
        search=settings["search"],
        optimizer=optimizer,
        scheduler=scheduler,
        metrics=build_metrics(config.metrics),
    )
    higher_is_better = module.metrics[settings["monitor"].removeprefix("val/")].higher_is_better
    if higher_is_better is (settings["monitor_mode"] == "min"):
        raise UserError(
            f"monitor_mode={settings['monitor_mode']} does not fit monitor={settings['monitor']}, "
            f"of which {'higher' if higher_is_better else 'lower'} is better"
        )
    module.config = settings | {"data": data.source.to_dict()}
    return module


def make_callbacks(config: DictConfig, output_dir: Path, *, has_logger: bool) -> list[pl.Callback]:
    """Build the configured callbacks, and those that every run needs."""
    averaging = [WeightAveraging(decay=config.weight_averaging)] if config.weight_averaging else []
    configured = build_callbacks(config.callbacks, output_dir, has_logger=has_logger)
    return [BatchSeed(config.seed), *averaging, *configured]


def check_share(processes: int, data: PairsDataModule) -> None:
    """Raise if several processes train in a sweep, or have fewer pairs in a batch than there are of them.

    Raises:
        UserError: In either case.
    """
    if processes == 1:
        return
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            f"trainer.devices makes {processes} processes, each of which would start the sweep again; give one device, "
            "or start the runs one by one"
        )
    if data.source.batch_size < processes:
        raise UserError(f"data.batch_size={data.source.batch_size} must be at least the {processes} processes")


def check_end(trainer: dict[str, Any], done: int, batches: int) -> None:
    """Raise if training never stops, or stops before a validation.

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
    if trainer.get("fast_dev_run"):
        return
    if epochs == steps == -1:
        raise UserError("trainer.max_epochs=-1 sets no end; give a number of epochs, or trainer.max_steps")
    if epochs == 0:
        raise UserError("trainer.max_epochs=0 must be at least 1, or -1 with trainer.max_steps")
    if 0 < epochs < done:
        raise UserError(f"trainer.max_epochs={epochs} must be at least the {done} epochs that are already done")
    if epochs == done:  # only the results are missing
        return
    next_validation = validation_step(trainer, done, batches)
    if 0 <= steps < next_validation:
        raise UserError(
            f"trainer.max_steps={steps} ends before the next validation, after step {next_validation}; "
            "nothing would be kept"
        )


def validation_step(trainer: dict[str, Any], done: int, batches: int) -> int:
    """Return the optimizer step after which the next validation comes; see `check_end` for the arguments.

    Example:
        >>> validation_step({"val_check_interval": 25}, done=0, batches=125)
        25
        >>> validation_step({"accumulate_grad_batches": 2, "limit_train_batches": 0.5}, done=1, batches=20)
        10
    """
    limit = trainer.get("overfit_batches") or trainer.get("limit_train_batches") or 1.0
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    interval = trainer.get("val_check_interval") or 1.0
    interval = interval if isinstance(interval, int) else max(1, int(batches * interval))
    gathered = check_count("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches", 1))
    every = trainer.get("check_val_every_n_epoch", 1)
    if every is None:  # batches are counted across epochs
        return math.ceil((done * batches // interval + 1) * interval / gathered)
    epochs = done + every - 1 - done % every  # whole epochs before the one with the next validation
    return epochs * math.ceil(batches / gathered) + math.ceil(interval / gathered)


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
def checkpoints_named_when_stopped(output_dir: Path) -> Iterator[None]:
    """Log which checkpoints are kept when a signal ends the run."""
    try:
        yield
    except Stopped as stop:
        kept = [str(path) for path in (output_dir / "best.ckpt", output_dir / "last.ckpt") if path.exists()]
        go_on = f"{', '.join(kept)}; continue with the same command, hydra.run.dir={output_dir} and resume=auto"
        log.error("stopped by %s; kept: %s", stop.signal, go_on if kept else "no checkpoint, as none was written yet")
        raise


@contextmanager
def memory_named(module: Seq2SeqModule) -> Iterator[None]:
    """Turn a lack of memory into an error that names the shape of the batch, and what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # of which torch.OutOfMemoryError is one
        if isinstance(error, RuntimeError) and not re.search(r"out of memory|can't allocate memory", str(error)):
            raise
        source, target = map(tuple, module.batch_shape)
        raise UserError(
            f"out of memory with a batch of source {source} and target {target}, as (pairs, tokens); lower "
            "data.batch_size, or limit data.batch_tokens, and add +trainer.accumulate_grad_batches to keep the step"
        ) from error


def finish(
    output_dir: Path, trainer: pl.Trainer, module: Seq2SeqModule, data: PairsDataModule, seconds: float
) -> dict[str, Any]:
    """Test the best checkpoint; write, print and draw the results; return the content of ``metrics.json``."""
    best = next((one for one in trainer.checkpoint_callbacks if getattr(one, "monitor", None)), None)
    checkpoint = getattr(best, "best_model_path", "") or None
    if best and not checkpoint and not module.config["trainer"].get("fast_dev_run"):
        if not trainer.is_global_zero:
            raise FailedElsewhereError
        raise UserError(
            "trainer: training ended before the first validation, or best.ckpt is lost: there is no checkpoint to test"
        )
    results = {}
    splits: tuple[Split, Split] = ("val", "test")
    for split in splits:
        run = trainer.validate if split == "val" else trainer.test
        run(module, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
        # Without any batch, Lightning has not counted them.
        used, count = sum((trainer.num_val_batches, trainer.num_test_batches)[split == "test"]), data.batches(split)
        part = f"{used} of {count} batches" if used < count else ""
        if used and module.predictions:
            name = "validation" if split == "val" else split
            results[name] = make_result(module.metrics, module.predictions, data, split, part)
    used, count = trainer.num_training_batches, data.batches("train")
    content = {split: result.to_dict() for split, result in results.items()} | {
        **({"training": {"part": f"{used} of {count} batches"}} if used < count else {}),
        "handoff": module.hparams["handoff"],
        "monitor": module.config["monitor"],
        "parameters": count_parameters(module),
        "seconds": round(seconds, 1),
        "best_checkpoint": checkpoint and str(Path(checkpoint).absolute()),
    }
    if trainer.is_global_zero:
        report(output_dir, module, results, content, trainer.loggers)
    return content


def report(
    output_dir: Path,
    module: Seq2SeqModule,
    results: dict[str, Result],
    content: dict[str, Any],
    loggers: Sequence[Logger],
) -> None:
    """Write, print and draw the results, and give them to the trackers."""
    test = results.get("test")
    if test:
        write_predictions(output_dir / "predictions.tsv", test.predictions)
    console = Console()
    show_metrics(console, results)
    if test:
        show_groups(console, test)
        show_predictions(console, test)
    trained = f" on {content['training']['part']}" if "training" in content else ""
    summary = f"{content['parameters']:,} parameters, {content['seconds']:.0f} s of training{trained}"
    checkpoint = content["best_checkpoint"] or "none, the final weights were tested"
    console.print(f"{summary}; best checkpoint: {checkpoint}", soft_wrap=True, markup=False)
    draw(output_dir, module.cpu().eval(), test.misses_first() if test else [])
    if any(isinstance(logger, TRACKERS) for logger in loggers):
        draw_handoff(output_dir / "handoff.png", module)
        send_results(loggers, output_dir, test.predictions if test else [])
    write_json(output_dir / METRICS, content)  # at the very end: it marks the run as finished


def draw_handoff(path: Path, module: Seq2SeqModule) -> None:
    """Draw which steps of a sequence become which row of the encoder's state, and which decoder layer each starts."""
    lengths = torch.tensor([3, 5])
    source = torch.full((2, 5), UNK).masked_fill(torch.arange(5) >= lengths.unsqueeze(1), PAD)
    picture = handoff_picture(
        verify(module.model, source, lengths),
        module.hparams["model"],
        module.hparams["handoff"],
        ["t=0", "t=1", "t=2"],
    )
    save(picture, path)


def draw(output_dir: Path, module: Seq2SeqModule, predictions: Sequence[Prediction]) -> None:
    """Draw the learning curves, and the attention for a few test pairs that are not too long, misses first."""
    metrics = output_dir / "metrics.csv"
    if metrics.exists():
        save(learning_curves(metrics), output_dir / "learning_curves.png")
    predictor = Predictor([module.trained])
    drawn = 0
    for pair in predictions:
        if drawn == HEATMAPS:
            return
        source, target = (
            module.source_tokenizer.tokens(pair.source),
            module.target_tokenizer.tokens(pair.prediction),
        )
        if max(len(source), len(target)) > HEATMAP_LIMIT:
            continue
        alignment = predictor.align(pair.source, predictor.n_best([pair.source])[0][0])
        if alignment is None:
            log.info("model.attention=none: there are no attention weights to draw")
            return
        drawn += 1
        save(attention_heatmap(alignment), output_dir / f"attention_{drawn}.png")
