"""From a composed config to objects; the only module that uses Hydra's ``instantiate``."""

import logging
import os
import pydoc
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig, ListConfig
from pydantic import Field, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from torchmetrics import MetricCollection

from seq2seq.errors import UserError, about_setting
from seq2seq.settings import Count, Fraction, Natural, Settings, read_settings, resolve_config
from seq2seq.training.callbacks import EpochBar

CHECKED = ("seq2seq", "pytorch_lightning")
"""Packages whose arguments are checked by their annotations; classes of the user's check themselves."""


def build(node: DictConfig, key: str, *arguments: Any, **keywords: Any) -> Any:
    """Build the object that a node's ``_target_`` names; raise a `UserError` if it cannot be, see `about_setting`."""
    with about_setting(key):
        check_arguments(find_target(node, key), resolve_config(node), key)
        try:
            return instantiate(node, *arguments, **keywords)
        except InstantiationException as error:
            raise error.__cause__ or error  # noqa: B904 - Hydra's message repeats its cause


def find_target(node: DictConfig, key: str) -> Any:
    """Return what a node's ``_target_`` names; raise a `UserError` if that is nothing, or needs a missing package."""
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key}={node} must hold a _target_ and its arguments")
    target = str(node.get("_target_"))
    try:
        found = pydoc.locate(target) if "." in target else None
    except pydoc.ErrorDuringImport as error:
        if isinstance(error.value, ModuleNotFoundError):
            missing = error.value.name
            raise UserError(f"{key}._target_={target} needs the package {missing}, which is not installed") from error
        raise (error.value or error) from None
    if found is None:
        raise UserError(f"{key}._target_={target} must be the full name of a class or a function")
    return found


def check_arguments(target: Any, values: Mapping[str, Any], key: str = "") -> None:
    """Raise if a value does not fit the annotation of its argument, which few libraries check themselves."""
    if getattr(target, "__module__", "").partition(".")[0] not in CHECKED:
        return
    try:
        hints = get_type_hints(target.__init__ if isinstance(target, type) else target, include_extras=True)
    except (NameError, TypeError):  # annotations that only type checkers can read
        return
    fields: dict[str, Any] = {}
    for name in values.keys() & hints.keys():
        with suppress(PydanticUserError):  # no plain value
            TypeAdapter(hints[name]).json_schema()
            fields[name] = (hints[name], ...)
    arguments = create_model("Arguments", __base__=Settings, **fields)
    read_settings(arguments, {name: values[name] for name in fields}, key)


SET_ELSEWHERE = {
    "callbacks": "see the section callbacks",
    "default_root_dir": "it is hydra.run.dir",
    "enable_checkpointing": "give callbacks=none to keep no checkpoint",
    "logger": "see the section logger",
    "plugins": "checkpoints are written by a plugin of this project",
    "use_distributed_sampler": "the batches are divided among the processes by the project's own dataset",
}
"""Arguments of the trainer that are not the user's to give, and what to give instead."""

MatmulPrecision = Literal["highest", "high", "medium"]  # of ``torch.set_float32_matmul_precision``
Part = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]  # a number of batches, or a fraction of all


class TrainerSettings(Settings, extra="allow"):
    """What Lightning's trainer accepts silently, although it makes no sense; it checks all else itself."""

    max_epochs: Annotated[int, Field(ge=-1)] = -1
    max_steps: Annotated[int, Field(ge=-1)] = -1
    devices: Count | str | list[Natural] = 1
    gradient_clip_val: Annotated[float, Field(ge=0)] | None = None
    accumulate_grad_batches: Count = 1
    check_val_every_n_epoch: Count | None = 1
    num_sanity_val_steps: Annotated[int, Field(ge=-1)] = 0
    log_every_n_steps: Natural = 1
    val_check_interval: Part | None = None
    limit_train_batches: Part | None = None
    limit_val_batches: float | None = None
    fast_dev_run: bool | Natural = False


class OptimizerSettings(Settings, extra="allow"):
    """What PyTorch's optimizers accept silently, although it makes no sense."""

    lr: Annotated[float, Field(ge=0, le=100)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.0
    momentum: Fraction = 0.0
    nesterov: bool = False


def build_trainer(
    node: DictConfig,
    output_dir: Path,
    callbacks: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
    plugins: Sequence[CheckpointIO] = (),
) -> pl.Trainer:
    """Build the trainer of a section ``trainer``, with a live bar if it runs in a terminal."""
    silence_expected_warnings()
    for name, instead in SET_ELSEWHERE.items():
        if name in node:
            raise UserError(f"trainer.{name}={node[name]} has no effect here: {instead}")
    if not loggers:
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    bar = bool(node.get("enable_progress_bar", True)) and sys.stdout.isatty()
    trainer = build(
        DictConfig({**node, **choose_devices(node)}),
        "trainer",
        default_root_dir=str(output_dir),
        callbacks=[*callbacks, *([EpochBar(leave=True)] if bar else [])],
        logger=loggers or False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=bar,
        plugins=list(plugins),
        use_distributed_sampler=False,
    )
    variable = "WORLD_SIZE" if TorchElasticEnvironment.detect() else "SLURM_STEP_NUM_TASKS"
    started, connected = int(os.environ.get(variable, "1")), trainer.world_size
    if started > connected:  # each would train alone
        raise UserError(
            f"trainer.devices={node.get('devices', 1)} makes {connected} of the {started} processes that have been "
            f"started ({variable}); give trainer=ddp under torchrun, or trainer=slurm under srun"
        )
    if connected > 1 and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        what = f"trainer.devices makes {connected} processes, each of which would start the sweep again"
        raise UserError(f"{what}; give one device, or start the runs one by one")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(f"trainer.strategy={node['strategy']} would train in processes that leave no results; give ddp")
    return trainer


def choose_devices(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the devices of a trainer and how many machines have them, where Lightning needs it said otherwise."""
    devices = node.get("devices", 1)
    if devices == "auto" and TorchElasticEnvironment.detect():
        return {"devices": int(os.environ["LOCAL_WORLD_SIZE"]), "num_nodes": int(os.environ["GROUP_WORLD_SIZE"])}
    on_cpu = node.get("accelerator", "auto") == "cpu" or not torch.accelerator.is_available()
    if on_cpu and isinstance(devices, list | ListConfig):  # Lightning takes no list of CPUs
        return {"devices": len(devices)}
    return {}


def build_callbacks(node: DictConfig, output_dir: Path) -> list[pl.Callback]:
    """Build the callbacks; checkpoints are kept in the run's directory."""
    callbacks = [build(entry, f"callbacks.{name}") for name, entry in node.items()]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = os.path.realpath(output_dir)
    return callbacks


def build_optimizer(optimizer: DictConfig, scheduler: DictConfig) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Build what makes optimizer and scheduler, and try it, so that a mistake is found before training."""
    arguments, keywords = [[torch.nn.Parameter(torch.zeros(1))]], {}
    for key, node in (("optimizer", optimizer), ("scheduler", scheduler)):
        if node.get("_partial_") is not True:
            raise UserError(f"{key}._partial_={node.get('_partial_')} must be true: it is called when training starts")
        built = build(DictConfig({**node, "_partial_": False}), key, *arguments, **keywords)
        arguments, keywords = [], {"optimizer": built, "total_steps": 100}  # of a scheduler
    return build(optimizer, "optimizer"), build(scheduler, "scheduler")


def build_metrics(node: DictConfig) -> MetricCollection:
    """Build the metrics by name."""
    metrics = MetricCollection({}, compute_groups=False)  # groups would merge metrics whose first values are equal
    for name, entry in node.items():
        metrics.add_metrics({str(name): build(entry, f"metrics.{name}")})  # one by one, or they would be sorted by name
    return metrics


def build_loggers(node: DictConfig, output_dir: Path) -> list[Logger]:
    """Build the loggers, all of which write into the run's directory."""
    return [build(entry, f"logger.{name}", save_dir=str(output_dir)) for name, entry in node.items()]


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set ``torch.set_float32_matmul_precision`` for a block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


EXPECTED = (
    ".*does not have many workers.*",  # with flat storage, batches are made faster in the training process
    "Early stopping conditioned on metric",  # a run that ends before its first validation raises an error of ours
    "`ModelCheckpoint.monitor=.* could not find the monitored key",  # likewise
    "(Experiment logs|Checkpoint) directory .* exists and is not empty",  # it holds our config before they come
    "The number of training batches .* is smaller than the logging interval",  # every epoch is logged anyway
    "You have overridden `transfer_batch_to_device`",  # lengths stay on the CPU
    ".*LeafSpec.* is deprecated",  # between Lightning and the newest PyTorch
    "You're resuming from a checkpoint that ended before the epoch ended",  # the sampler skips what is done
    "You're using the WeightAveraging callback, but loading",  # to test it
    "You defined a `validation_step` but have no `val_dataloader`",  # the benchmark
)
"""Warnings about what is intended here."""


def silence_expected_warnings() -> None:
    """Silence `EXPECTED`, and what Lightning says about itself at each start."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)
