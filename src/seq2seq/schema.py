"""Schemas: classes whose annotations say which keys a section of a config has, and what their values may be."""

import types
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from seq2seq.errors import UserError, check_choice, check_count, check_flag, check_keys, check_number


class Bounds(NamedTuple):
    """Bounds of a number: both are allowed for a whole number, the upper one is not for a fraction."""

    low: float
    high: float


Count = Annotated[int, Bounds(1, 2**63 - 1)]
"""A whole number of at least 1."""

Natural = Annotated[int, Bounds(0, 2**63 - 1)]
"""A whole number of at least 0."""

Fraction = Annotated[float, Bounds(0, 1)]
"""A number of at least 0 and below 1."""


def check(section: str, values: object, schema: type) -> None:
    """Raise if a section of a config has an unknown key, lacks one, or holds a value that is not allowed.

    Args:
        section: Its dotted key; empty for the whole config.
        values: Its content.
        schema: A class with an annotation for every key: ``bool``, ``int``, ``float``, ``str``, ``Literal``, a number
            with `Bounds`, a list, ``X | None``, ``X | Y``, another schema, or ``Any`` for what is checked elsewhere.

    Raises:
        UserError: In any of these cases.

    Example:
        >>> class Loading:
        ...     batch_size: Count
        ...     kind: Literal["fast", "slow"]
        >>> check("data", {"batch_size": 0, "kind": "fast"}, Loading)
        Traceback (most recent call last):
        seq2seq.errors.UserError: data.batch_size=0 must be a whole number of at least 1
    """
    hints = get_type_hints(schema, include_extras=True)
    hints = {key: hint for key, hint in hints.items() if get_origin(hint) is not ClassVar}
    check_keys(section, values, hints)  # pyright: ignore[reportArgumentType] - raises if it is no mapping
    for key, hint in hints.items():
        check_value(f"{section}.{key}" if section else key, values[key], hint)  # pyright: ignore[reportIndexIssue]


def check_value(key: str, value: object, hint: Any) -> None:  # noqa: ANN401 - an annotation
    """Raise if a value does not fit an annotation; ``key`` names it in the error."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is not None or types.NoneType not in arguments:
            check_any(key, value, [one for one in arguments if one is not types.NoneType])
    elif origin is list:
        if not isinstance(value, list) or not value:
            raise UserError(f"{key}={value} must be a list of at least one")
        for entry in value:
            check_value(key, entry, arguments[0])
    elif origin is Literal:
        check_choice(key, value, arguments)
    elif origin is Annotated:
        check_scalar(key, value, arguments[0], arguments[1])
    elif hint in (bool, int, float, str):
        check_scalar(key, value, hint, Bounds(-(2**63), 2**63 - 1))
    elif hint is not Any:
        check(key, value, hint)


def check_any(key: str, value: object, hints: list[Any]) -> None:
    """Raise if a value fits none of several annotations."""
    if all(get_origin(hint) is Literal for hint in hints):
        choices = [choice for hint in hints for choice in get_args(hint)]
        if value not in choices:
            raise UserError(f"{key}={value} must be one of {', '.join(map(str, choices))}")
        return
    for number, hint in enumerate(hints, start=1):
        try:
            check_value(key, value, hint)
        except UserError:
            if number == len(hints):
                raise
        else:
            return


def is_simple(hint: Any) -> bool:  # noqa: ANN401 - an annotation
    """Return whether an annotation is one that `check_value` knows, and no schema."""
    if get_origin(hint) in (Union, types.UnionType):
        return all(is_simple(one) for one in get_args(hint))
    return hint in (bool, int, float, str, types.NoneType) or get_origin(hint) in (Literal, Annotated)


def check_scalar(key: str, value: object, kind: type, bounds: Bounds) -> None:
    """Raise if a value is not of a kind, or a number is not within its bounds."""
    if kind is bool:
        check_flag(key, value)
    elif kind is int:
        check_count(key, value, int(bounds.low), int(bounds.high))
    elif kind is float:
        check_number(key, value, *bounds)
    elif not isinstance(value, str):
        raise UserError(f"{key}={value} must be a string")
