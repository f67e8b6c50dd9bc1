"""The test split that a checkpoint is evaluated on: its own, or another one with its tokenizers."""

import logging
from collections.abc import Sequence
from typing import Any

from seq2seq.data import UNK, build_source, prepare
from seq2seq.errors import UserError
from seq2seq.model import TrainedModel
from seq2seq.training.datamodule import PairsDataModule

log = logging.getLogger(__name__)

OVERRIDABLE = (
    "test", "source_column", "target_column", "features_column", "group_column", "header", "comment",
    "merge_references", "batch_size", "batch_tokens",
)  # fmt: skip
"""Keys of ``data`` that may be given for evaluation; the checkpoint fixes the others."""

OF_TOKENIZERS = (
    "source_tokens", "target_tokens", "features_tokens", "normalization", "lower_case", "shared_vocabulary",
    "min_count", "max_symbols",
)  # fmt: skip
"""Keys of ``data`` that the checkpoint fixes even if the data come from another source."""

FILES = ("tsv", "parallel")
"""Sources of data that a checkpoint can be evaluated on, whatever it was trained on."""


def data_of_checkpoint(
    trained: TrainedModel, given: dict[str, Any] | None, overrides: Sequence[str]
) -> PairsDataModule:
    """Read the test split that a checkpoint is used on, with the checkpoint's tokenizers; see `merge_data`."""
    source = build_source(merge_data(trained.settings["data"], given, overrides))
    prepared = prepare(source, ["test"], trained.tokenizers)
    dataset = prepared.datasets["test"]
    for side in prepared.source.parts:
        sequences = getattr(dataset, side if side == "features" else f"{side}s")
        share = float((sequences.ids == UNK).float().mean())
        if share > 0:
            log.warning("%.1f %% of the %s tokens are not in the vocabulary of the checkpoint", 100 * share, side)
    return PairsDataModule(prepared)


def merge_data(trained: dict[str, Any], given: dict[str, Any] | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the data to evaluate on, from those of the checkpoint and those of the config, if any.

    With the task of the checkpoint, only the keys that the overrides name are replaced.

    Raises:
        UserError: If they name a key that the checkpoint fixes.
    """
    if given is None:
        return trained
    task, own = given.get("task"), trained["task"]
    if task not in (*FILES, own):
        use = f"use {' or '.join(FILES)}, or leave it out"
        raise UserError(f"data={task} cannot be given here: the checkpoint was trained on {own}; {use}")
    names = (override.lstrip("+").partition("=")[0] for override in overrides)
    named = {name.removeprefix("data.") for name in names if name.startswith("data.")}
    for key in sorted(named.difference(OVERRIDABLE)):
        free = f"what can be given is {', '.join(key for key in OVERRIDABLE if key in given)}"
        raise UserError(f"data.{key}={given.get(key)} cannot be given here: the checkpoint fixes it; {free}")
    if task != own:
        return given | {key: trained[key] for key in OF_TOKENIZERS if key in trained}
    return trained | {key: given[key] for key in OVERRIDABLE if key in named}
