"""A composed config to objects; the only place that instantiates."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger

from seq2seq.errors import UserError, check_mapping
from seq2seq.training.callbacks import EpochLines


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a config as numbers, strings, lists and dicts, with every reference resolved.

    Raises:
        UserError: If a mandatory value is missing or a reference leads nowhere.
    """
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # pyright: ignore[reportReturnType]
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing: give {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def build(node: DictConfig, key: str, **arguments: Any) -> Any:  # noqa: ANN401 - whatever the node's target is
    """Build the object that a node's ``_target_`` names.

    Raises:
        UserError: If it does not accept the node's values.
    """
    try:
        return instantiate(node, **arguments)
    except (InstantiationException, TypeError, ValueError) as error:
        reason = error.__cause__ or error
        raise UserError(f"{key}: {' '.join(str(reason).split())}") from error


TRAINER_CONTENT = "the arguments of Lightning's Trainer"

PARTIAL = ("limit_val_batches", "limit_test_batches", "fast_dev_run", "overfit_batches")
"""Arguments of the trainer that would judge a model by a part of the data."""


MATMUL_PRECISIONS = ("highest", "high", "medium")
"""Those of ``torch.set_float32_matmul_precision``."""


def build_trainer(
    node: DictConfig,
    output_dir: Path,
    callbacks: list[pl.Callback] | None = None,
    loggers: list[Logger] | None = None,
) -> pl.Trainer:
    """Build the trainer; without callbacks and loggers, one that only evaluates."""
    check_mapping("trainer", node, TRAINER_CONTENT)
    for key in PARTIAL:
        if key in node:
            raise UserError(
                f"trainer.{key}={node[key]} is not allowed: results are of the whole validation and test set"
            )
    for key in ("devices", "num_nodes"):
        if node.get(key, 1) != 1:
            raise UserError(f"trainer.{key}={node[key]} must be 1: a run uses one device")
    # A live bar for eyes, a line each epoch for a file.
    bar = bool(node.get("enable_progress_bar", True)) and sys.stdout.isatty()
    progress = RichProgressBar(leave=True) if bar else EpochLines()
    return build(
        node,
        "trainer",
        default_root_dir=str(output_dir),
        callbacks=[*(callbacks or []), progress],
        logger=loggers or False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=bar,
    )


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Take the matrix products of 32-bit numbers in a precision of ``torch.set_float32_matmul_precision`` meanwhile."""
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


def keep_quiet() -> None:
    """Silence what Lightning says about itself, and what it warns of that is so on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    # Batches are made in the training process, where flat storage makes them faster than workers would.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # A run that ends before its first validation is answered with an error.
    warnings.filterwarnings("ignore", "Early stopping conditioned on metric")
    warnings.filterwarnings("ignore", "`ModelCheckpoint.monitor=.* could not find the monitored key")
    # The run's directory holds our config before the logger and the checkpoints arrive.
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
    # Few batches are no mistake; every epoch is logged anyway.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", "You have overridden `transfer_batch_to_device`")  # lengths stay on the CPU
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # between Lightning and the newest PyTorch
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")  # the benchmark
