"""The one error that is the user's to mend, and the checks that raise it."""

from collections.abc import Collection


class UserError(ValueError):
    """A mistake in a setting or a file: the scripts print it as one line and exit with code 1.

    The message says what is wrong, the value that was found, and what is allowed. Anything else that is raised is a
    bug of ours and keeps its traceback.
    """


def check_count(key: str, value: object, minimum: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``minimum``; ``key`` names it in the error."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(f"{key}={value} must be a whole number of at least {minimum}")
    return value


def check_number(key: str, value: object, low: float, high: float) -> float:
    """Return ``value`` if it is a number in the half-open range from ``low`` (allowed) to ``high`` (not allowed)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
        raise UserError(f"{key}={value} must be a number of at least {low:g} and below {high:g}")
    return float(value)


def check_flag(key: str, value: object) -> bool:
    """Return ``value`` if it is true or false."""
    if not isinstance(value, bool):
        raise UserError(f"{key}={value} must be true or false")
    return value


def check_choice(key: str, value: object, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{key}={value} must be one of {', '.join(choices)}")
    return value
