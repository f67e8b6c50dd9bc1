"""Train a model: from a composed config to the files of a run."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pydantic import Field, model_validator
from torch.optim import Optimizer

from seq2seq.data import PreparedData, build_source, prepare
from seq2seq.errors import UserError, about_setting
from seq2seq.model import Fast, ModelSettings
from seq2seq.reporting.trackers import closed_at_the_end
from seq2seq.resuming.continuing import find_start
from seq2seq.resuming.saving import Minutes, WholeCheckpoints
from seq2seq.resuming.signals import StopSignals
from seq2seq.runs.next_steps import next_steps
from seq2seq.settings import (
    CommandSettings,
    Count,
    Fraction,
    Probability,
    Settings,
    choose,
    read_settings,
    resolve_config,
)
from seq2seq.training.build import (
    MatmulPrecision,
    OptimizerSettings,
    TrainerSettings,
    build_callbacks,
    build_loggers,
    build_metrics,
    build_optimizer,
    build_trainer,
    matmul_precision,
)
from seq2seq.training.callbacks import BatchSeed, EpochLines, WeightAveraging
from seq2seq.training.datamodule import PairsDataModule
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.processes import freeze_unused
from seq2seq.training.results import test_and_report

log = logging.getLogger(__name__)


class CheckpointSettings(Settings):
    """The keys of ``checkpoint``."""

    every_n_steps: Count | None
    every_minutes: Minutes | None


class TrainSettings(CommandSettings):
    """The keys of ``configs/train.yaml``. Sections that are mappings are checked where they are read."""

    data: dict[str, Any]
    model: ModelSettings
    optimizer: OptimizerSettings
    scheduler: dict[str, Any]
    search: dict[str, Any]
    metrics: dict[str, Any]
    callbacks: dict[str, Any]
    trainer: TrainerSettings
    logger: dict[str, Any]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    dataset: str | None
    resume: Annotated[str, Field(min_length=1)] | None
    checkpoint: CheckpointSettings
    label_smoothing: Fraction
    scheduled_sampling: Probability
    weight_averaging: Fraction
    fast: Fast
    matmul_precision: MatmulPrecision
    monitor: str
    monitor_mode: Literal["max", "min"]
    optimized_metric: str
    handoff: str

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check that every metric that a key names is measured, that the run ends, and that something is left of it."""
        measured = dict.fromkeys(f"val/{name}" for name in self.metrics)
        choose("monitor", self.monitor, measured)
        choose("optimized_metric", self.optimized_metric, measured | {f"test/{name}": None for name in self.metrics})
        for name, entry in self.callbacks.items():
            if isinstance(entry, dict) and "monitor" in entry:
                choose(f"callbacks.{name}.monitor", entry["monitor"], {"train/loss": None} | measured)
        trainer = self.trainer
        if trainer.max_epochs == trainer.max_steps == -1 and not trainer.fast_dev_run:
            raise UserError("trainer.max_epochs=-1 sets no end; give a number of epochs, or trainer.max_steps")
        if self.callbacks and trainer.limit_val_batches == 0:
            raise UserError("trainer.limit_val_batches=0 leaves no best checkpoint; give callbacks=none, too")
        return self


def train(
    config: DictConfig, output_dir: Path, overrides: Sequence[str] = (), *, show_next: bool = False
) -> dict[str, Any]:
    """Train, test the best checkpoint, and return the content of ``metrics.json``.

    Args:
        config: Composed from ``configs/train.yaml``.
        output_dir: The run's directory; it must not hold a run, unless this one resumes it.
        overrides: Overrides of the command line, kept beside the config.
        show_next: Whether to log what to do with the model.

    Raises:
        UserError: If a setting or a file is not valid, before anything is trained or written, or if training fails.
        Stopped: When a signal has ended the run.
    """
    settings: dict[str, Any] = resolve_config(config)
    read_settings(TrainSettings, settings)  # refuses what is not allowed; what is read below are the plain values
    start = find_start(output_dir, settings)  # of a run that does not resume: the beginning
    if start.results is not None:
        log.info("%s is finished already", output_dir)
        return start.results
    settings = settings | {"resume": start.checkpoint}

    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    prepared = prepare(build_source(settings["data"]), ("train", "val", "test"))
    data = PairsDataModule(prepared, seed=settings["seed"], start=start.position)
    module = build_module(config, settings, prepared)
    start.check(module)

    loggers = build_loggers(config.logger, output_dir)
    signals = StopSignals(output_dir)
    callbacks = [signals, BatchSeed(settings["seed"]), EpochLines(settings["monitor"])]
    if settings["weight_averaging"]:
        callbacks.append(WeightAveraging(decay=settings["weight_averaging"]))
    callbacks += build_callbacks(config.callbacks, output_dir)
    trainer = build_trainer(config.trainer, output_dir, callbacks, loggers, [WholeCheckpoints()])
    prepare_processes(trainer, module, prepared)

    with start.entered(trainer, overrides), signals, closed_at_the_end(loggers):
        for logger in loggers:
            logger.log_hyperparams(settings)
        log.info(describe(trainer, module, prepared))
        begin = time.monotonic()
        with errors_of_training(module):
            with matmul_precision(settings["matmul_precision"]):
                trainer.fit(module, data, ckpt_path=start.checkpoint, weights_only=True)
            content = test_and_report(output_dir, trainer, module, data, seconds=time.monotonic() - begin)
        if show_next and content["best_checkpoint"]:
            texts = [pair.source for pair in islice(prepared.pairs["test"], 20)]
            log.info("\n".join(next_steps(output_dir, content["best_checkpoint"], texts, settings["parts"])))
    return content


def train_and_score(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> float | None:
    """Train, and return the value of ``optimized_metric`` for a Hydra sweeper; None if there is none."""
    single = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.RUN  # and not of a sweep
    content = train(config, output_dir, overrides, show_next=single)
    split, _, name = str(config.optimized_metric).partition("/")
    return content.get({"val": "validation"}.get(split, split), {}).get(name)


def build_module(config: DictConfig, settings: dict[str, Any], data: PreparedData) -> Seq2SeqModule:
    """Build the module for the vocabularies of the data."""
    optimizer, scheduler = build_optimizer(config.optimizer, config.scheduler)
    own = ("model", "handoff", "label_smoothing", "scheduled_sampling", "fast", "search")
    tokenizers: dict[str, Any] = data.tokenizers.arguments()
    module = Seq2SeqModule(
        **{key: settings[key] for key in own},
        **tokenizers,
        max_length=settings["search"].get("max_length") or 2 * int(data.datasets["train"].targets.lengths.max()),
        data=data.source.to_dict(),
        optimizer=optimizer,
        scheduler=scheduler,
        metrics=build_metrics(config.metrics),
    )
    monitor, mode = settings["monitor"], settings["monitor_mode"]
    higher_is_better = module.metrics[monitor.removeprefix("val/")].higher_is_better
    if higher_is_better is (mode == "min"):
        better = "higher" if higher_is_better else "lower"
        raise UserError(f"monitor_mode={mode} does not fit monitor={monitor}, of which {better} is better")
    module.config = settings | {"data": data.source.to_dict(), "threads": torch.get_num_threads()}
    return module


def prepare_processes(trainer: pl.Trainer, module: Seq2SeqModule, data: PreparedData) -> None:
    """Prepare a model for several processes, if there are; raise if they lack pairs."""
    if (processes := trainer.world_size) == 1:
        return
    if data.source.batch_size < processes:
        raise UserError(f"data.batch_size={data.source.batch_size} must be at least the {processes} processes")
    freeze_unused(module.model)


def describe(trainer: pl.Trainer, module: Seq2SeqModule, data: PreparedData) -> str:
    """Return one line about data, model and processes."""
    sizes = data.tokenizers.sizes()
    pairs, parameters = len(data.datasets["train"]), sum(parameter.numel() for parameter in module.parameters())
    symbols = f"{sizes['source']} source and {sizes['target']} target symbols"
    symbols += f", {sizes['features']} features" if "features" in sizes else ""
    line = f"{pairs} training pairs, {symbols}, {parameters} parameters, {describe_optimizer(module.make_optimizer)}"
    shared = [(trainer.world_size, "processes"), (torch.get_num_threads(), "threads")]
    return line + "".join(f", {number} {name}" for number, name in shared if number > 1)


def describe_optimizer(make: Callable[..., Optimizer]) -> str:
    """Return the name of an optimizer and its learning rate, given or its own, such as ``AdamW(lr=0.003)``."""
    optimizer = make([torch.nn.Parameter(torch.zeros(1))])
    rate = optimizer.param_groups[0].get("lr")
    return type(optimizer).__name__ + ("" if rate is None else f"(lr={float(rate):g})")


@contextmanager
def errors_of_training(module: Seq2SeqModule) -> Iterator[None]:
    """Turn a lack of memory, and what libraries say about the trainer's settings, into one line."""
    with about_setting("trainer", whole_run=True):
        try:
            yield
        except (RuntimeError, MemoryError) as error:  # of which torch.OutOfMemoryError is one
            known = isinstance(error, torch.OutOfMemoryError | MemoryError)
            if not known and not any(text in str(error) for text in ("out of memory", "can't allocate")):
                raise
            source, target = map(tuple, module.batch_shape)
            raise UserError(
                f"out of memory with a batch of source {source} and target {target}, as (pairs, tokens); lower "
                "data.batch_size, or limit data.batch_tokens, and add +trainer.accumulate_grad_batches to keep the step"
            ) from error
