"""What values may have that go on to PyTorch and Lightning, which accept some that make no sense."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

from seq2seq.errors import UserError, check_mapping
from seq2seq.schema import Bounds, Count, Fraction, Natural, check_value


class OptimizerLimits:
    """Keys of ``optimizer``."""

    lr: Annotated[float, Bounds(0, 100)]
    weight_decay: Annotated[float, Bounds(0, 100)]
    momentum: Fraction
    nesterov: bool


class TrainerLimits:
    """Keys of ``trainer``."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"]
    gradient_clip_val: Annotated[float, Bounds(0, float("inf"))] | None
    accumulate_grad_batches: Count
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: Annotated[int, Bounds(-1, 2**63 - 1)]
    log_every_n_steps: Natural
    enable_progress_bar: bool
    enable_model_summary: bool


LIMITS = {"optimizer": OptimizerLimits, "trainer": TrainerLimits}

PARTS = {
    "limit_train_batches": 1,
    "limit_val_batches": 0,
    "limit_test_batches": 0,
    "overfit_batches": 0,
    "val_check_interval": 1,
}
"""Keys of the trainer that are a number of batches, at least this one, or a fraction of all batches."""


def check_limits(section: str, given: object, content: str) -> None:
    """Raise if a value of a section makes no sense; keys that are not known here are left to whoever takes them.

    Args:
        section: A key of `LIMITS`.
        given: The section's content.
        content: What it must hold, for the error.

    Raises:
        UserError: If one does not, or the section is no mapping.
    """
    check_mapping(section, given, content)
    values: Mapping[str, Any] = given  # pyright: ignore[reportAssignmentType]
    for key, hint in get_type_hints(LIMITS[section], include_extras=True).items():
        if key in values:
            check_value(f"{section}.{key}", values[key], hint)
    for key, least in PARTS.items() if section == "trainer" else ():
        if values.get(key) is not None:
            check_part(f"trainer.{key}", values[key], least)
    dev_run = values.get("fast_dev_run", False) if section == "trainer" else False
    if not isinstance(dev_run, int) or dev_run < 0:
        raise UserError(f"trainer.fast_dev_run={dev_run} must be true, false or a number of batches")


def check_part(key: str, value: object, least: int) -> None:
    """Raise if a value is neither a number of batches nor a fraction of all batches."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    fraction = isinstance(value, float) and (0 < value <= 1 or value == least == 0)
    if not whole and not fraction:
        raise UserError(
            f"{key}={value} must be a number of batches, {least} or more, or a fraction above 0, at most 1.0"
        )
