"""From a composed config to objects; the only module that uses Hydra's ``instantiate``."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger
from torchmetrics import MetricCollection

from seq2seq.errors import UserError, check_choice, check_count, check_mapping
from seq2seq.schema import check_value, is_simple
from seq2seq.settings import resolve_config
from seq2seq.training.callbacks import EpochLines
from seq2seq.training.processes import check_started, torchelastic_started
from seq2seq.training.saving import WholeCheckpoints

log = logging.getLogger(__name__)


def build(node: DictConfig, key: str, **arguments: Any) -> Any:  # noqa: ANN401 - whatever the node's target is
    """Build the object that a node's ``_target_`` names.

    Raises:
        UserError: If there is no such class, or it does not accept the node's values.
    """
    check_arguments(node, key)
    try:
        return instantiate(node, **arguments)
    except (InstantiationException, TypeError, ValueError, ImportError) as error:
        raise not_accepted(node, key, error.__cause__ or error) from error


def find_target(node: DictConfig, key: str) -> Any:  # noqa: ANN401 - a class or a function
    """Return what a node's ``_target_`` names.

    Raises:
        UserError: If there is nothing of that name.
    """
    check_mapping(key, node, "a _target_ and its arguments")
    target = node.get("_target_")
    try:
        return get_object(target)
    except (ImportError, AttributeError, ValueError, TypeError, InstantiationException):
        raise UserError(f"{key}._target_={target} must be the full name of a class or a function") from None


def check_arguments(node: DictConfig, key: str) -> None:
    """Raise if an argument does not fit its annotation, where that is a simple one; few libraries check themselves.

    Raises:
        UserError: If one does not.
    """
    target = find_target(node, key)
    try:
        hints = get_type_hints(target.__init__ if isinstance(target, type) else target, include_extras=True)
    except (NameError, TypeError):  # annotations that only type checkers can read
        return
    for name, value in resolve_config(node).items():
        if name in hints and is_simple(hints[name]):
            check_value(f"{key}.{name}", value, hints[name])


def not_accepted(node: DictConfig, key: str, reason: BaseException) -> UserError:
    """Return the error for what a target has not accepted, with the keys that its message is about."""
    if isinstance(reason, UserError):
        return reason
    message = " ".join(str(reason).split())
    concerned = [
        f"{key}.{name}={value}"
        for name, value in node.items()
        if re.search(rf"\b{re.escape(str(name))}\b", message) or f"{value}" in message
    ]
    return UserError(f"{key}: {message}{' (' if concerned else ''}{', '.join(concerned)}{')' if concerned else ''}")


TRAINER_CONTENT = "the arguments of Lightning's Trainer"

SET_ELSEWHERE = {
    "callbacks": "see the section callbacks",
    "default_root_dir": "it is hydra.run.dir",
    "enable_checkpointing": "give callbacks=none to keep no checkpoint",
    "logger": "see the section logger",
    "plugins": "checkpoints are written by a plugin of this project",
    "use_distributed_sampler": "the batches are divided among the processes by the project's own sampler",
}
"""Arguments of the trainer that are not the user's to give, and what to give instead."""

MatmulPrecision = Literal["highest", "high", "medium"]
"""The values of ``torch.set_float32_matmul_precision``."""


def build_trainer(
    node: DictConfig, output_dir: Path, callbacks: list[pl.Callback], loggers: list[Logger], monitor: str
) -> pl.Trainer:
    """Build the trainer."""
    check_mapping("trainer", node, TRAINER_CONTENT)
    for name, instead in SET_ELSEWHERE.items():
        if name in node:
            raise UserError(f"trainer.{name}={node[name]} has no effect here: {instead}")
    # A live bar in a terminal, a line per epoch elsewhere.
    bar = bool(node.get("enable_progress_bar", True)) and sys.stdout.isatty()
    trainer = build(
        DictConfig({**node, **choose_devices(node)}),
        "trainer",
        default_root_dir=str(output_dir),
        callbacks=[*callbacks, RichProgressBar(leave=True) if bar else EpochLines(monitor)],
        logger=loggers or False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=bar,
        plugins=[WholeCheckpoints()],
        use_distributed_sampler=False,
    )
    check_started(trainer, node.get("devices", 1))
    return trainer


STRATEGIES = ("auto", "ddp")
"""Values of ``trainer.strategy``."""


def choose_devices(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the devices of a trainer, how many machines have them, and the strategy, as Lightning takes them.

    Raises:
        UserError: If a value is not allowed.
    """
    strategy = check_choice("trainer.strategy", node.get("strategy", "auto"), STRATEGIES)
    devices, nodes = node.get("devices", 1), check_count("trainer.num_nodes", node.get("num_nodes", 1))
    if not isinstance(devices, ListConfig) and devices != "auto":
        devices = check_count("trainer.devices", int(devices) if str(devices).isdecimal() else devices)
    if devices == "auto" and torchelastic_started():
        devices, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    on_cpu = node.get("accelerator", "auto") == "cpu" or not torch.accelerator.is_available()
    if on_cpu and isinstance(devices, ListConfig):  # Lightning takes no list of CPUs
        devices = len(devices)
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy}


def build_callbacks(node: DictConfig, output_dir: Path, *, has_logger: bool) -> list[pl.Callback]:
    """Build the callbacks; checkpoints are kept in the run's directory."""
    check_mapping("callbacks", node, "callbacks by name, or nothing")
    callbacks = []
    for name, entry in node.items():
        target = find_target(entry, f"callbacks.{name}")
        is_checkpoint = isinstance(target, type) and issubclass(target, ModelCheckpoint)
        callback = build(entry, f"callbacks.{name}", **({"dirpath": str(output_dir)} if is_checkpoint else {}))
        if has_logger or not isinstance(callback, LearningRateMonitor):  # which needs a logger
            callbacks.append(callback)
    return callbacks


def build_optimizer(optimizer: DictConfig, scheduler: DictConfig) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Build what makes optimizer and scheduler, and try it, so that a mistake is found before training.

    Raises:
        UserError: If they do not accept their values.
    """
    factories = []
    arguments: list[Any] = [[torch.nn.Parameter(torch.zeros(1))]]
    for key, node in (("optimizer", optimizer), ("scheduler", scheduler)):
        check_mapping(key, node, "a _target_ and its arguments")
        if node.get("_partial_") is not True:
            raise UserError(f"{key}._partial_={node.get('_partial_')} must be true: it is called when training starts")
        factory = build(node, key)
        try:
            arguments = [factory(*arguments), 100]  # a scheduler takes the optimizer and the number of steps
        except (TypeError, ValueError) as error:
            raise not_accepted(node, key, error) from error
        factories.append(factory)
    return factories[0], factories[1]


def build_metrics(node: DictConfig) -> MetricCollection:
    """Build the metrics by name."""
    check_mapping("metrics", node, "metrics by name")
    # Compute groups would merge metrics of different classes if their first values are equal by chance.
    metrics = MetricCollection({}, compute_groups=False)
    for name, entry in node.items():
        metrics.add_metrics({str(name): build(entry, f"metrics.{name}")})  # one by one, or they would be sorted by name
    return metrics


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set ``torch.set_float32_matmul_precision`` for a block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def build_loggers(node: DictConfig, output_dir: Path) -> list[Logger]:
    """Build the loggers, all of which write into the run's directory."""
    check_mapping("logger", node, "loggers by name")
    return [build(entry, f"logger.{name}", save_dir=str(output_dir)) for name, entry in node.items()]


def silence_expected_warnings() -> None:
    """Silence Lightning's messages about itself, and warnings about what is intended here."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # With flat storage, batches are made faster in the training process than by workers.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # A run that ends before its first validation raises an error of ours.
    warnings.filterwarnings("ignore", "Early stopping conditioned on metric")
    warnings.filterwarnings("ignore", "`ModelCheckpoint.monitor=.* could not find the monitored key")
    # The run's directory holds our config before the logger and the checkpoints arrive.
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
    # Small data sets are fine; every epoch is logged anyway.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", "You have overridden `transfer_batch_to_device`")  # lengths stay on the CPU
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # between Lightning and the newest PyTorch
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # The sampler skips the batches that are done.
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    warnings.filterwarnings("ignore", "You're using the WeightAveraging callback, but loading")  # to test it
    warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")  # the benchmark
