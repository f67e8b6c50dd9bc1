"""Search spaces: for each key of the training config, the values that may be tried."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from seq2seq.errors import UserError


def read_space(space: object) -> dict[str, BaseDistribution]:
    """Return the distribution of each key of a search space.

    A list stands for a choice, a mapping with ``low`` and ``high``, and maybe ``log`` or ``step``, for a range; it is
    one of whole numbers if both of its ends are.

    Raises:
        UserError: If one is neither, or the space is empty.

    Example:
        >>> space = read_space({"model.dropout": {"low": 0.1, "high": 0.5}, "data.batch_size": [16, 32]})
        >>> space["data.batch_size"]
        CategoricalDistribution(choices=(16, 32))
    """
    if not isinstance(space, Mapping) or not space:
        raise UserError(f"tune.space={space} must hold keys of the training config and the values to try")
    return {str(key): read_values(f"tune.space.{key}", values) for key, values in space.items()}


def read_values(key: str, values: object) -> BaseDistribution:
    """Return the distribution of one key.

    Raises:
        UserError: If it is neither a choice nor a range.
    """
    try:
        if isinstance(values, list) and values:
            return CategoricalDistribution(values)
        if isinstance(values, Mapping) and {"low", "high"} <= values.keys() <= {"low", "high", "log", "step"}:
            whole = all(type(values.get(name, 1)) is int for name in ("low", "high", "step"))
            return (IntDistribution if whole else FloatDistribution)(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}={values}: {' '.join(str(error).split())}") from error
    raise UserError(f"{key}={values} must be a list of values, or a mapping with low and high, and maybe log or step")


def combinations(values: Mapping[str, Sequence[Any]], space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the values of some keys, the last of which changes fastest; without keys, one.

    Raises:
        UserError: If a key has no value, or is one of the search space.

    Example:
        >>> combinations({"seed": [1, 2], "dataset": ["hun", "fin"]}, space={})[1]
        {'seed': 1, 'dataset': 'fin'}
    """
    if both := values.keys() & space.keys():
        raise UserError(f"tune.over.{min(both)} cannot be given: tune.space has that key, too")
    if empty := [key for key, own in values.items() if not own]:
        raise UserError(f"tune.over.{empty[0]}=[] must hold at least one value")
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def read_first(first: Sequence[dict[str, Any]], space: Mapping[str, BaseDistribution]) -> Sequence[dict[str, Any]]:
    """Return the values to begin with, or raise a `UserError` if one is not in the space."""
    for number, one in enumerate(first):
        for key, value in one.items():
            if key not in space or not contains(space[key], value):
                allowed = f"tune.space.{key}: {space[key]}" if key in space else f"tune.space: {', '.join(space)}"
                raise UserError(f"tune.first[{number}].{key}={value} is not in {allowed}")
    return first


def overrides_of(params: Mapping[str, Any]) -> list[str]:
    """Return the overrides that select values of a space, fractions without the noise of steps: 0.35000000000000003.

    Example:
        >>> overrides_of({"optimizer.lr": 0.35000000000000003, "scheduler": None})
        ['optimizer.lr=0.35', 'scheduler=null']
    """
    rounded = {key: float(f"{value:.10g}") if isinstance(value, float) else value for key, value in params.items()}
    return [f"{key}={'null' if value is None else value}" for key, value in rounded.items()]


def example(distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a number, a string or None
    """Return one of the values of a distribution."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low  # pyright: ignore[reportAttributeAccessIssue]


def contains(distribution: BaseDistribution, value: object) -> bool:
    """Return whether a value is one of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high, step = (getattr(distribution, name) for name in ("low", "high", "step"))
    steps = (value - low) / (step or 1)
    return low <= value <= high and (step is None or abs(steps - round(steps)) < 1e-9)
