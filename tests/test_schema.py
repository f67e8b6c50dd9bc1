"""Schemas: what each annotation allows, and that a mistake is named by its key."""

from typing import Annotated, Any, Literal

import pytest

from seq2seq.errors import UserError
from seq2seq.schema import Bounds, Count, Fraction, Natural, check


class Inner:
    size: Count


class Outer(Inner):
    flag: bool
    share: Fraction
    level: Annotated[int, Bounds(2, 5)]
    limit: Natural | None
    kind: Literal["a", "b"]
    name: str
    sizes: list[Count]
    inner: Inner
    anything: Any


RIGHT = {
    "size": 1, "flag": True, "share": 0.5, "level": 5, "limit": None, "kind": "b", "name": "", "sizes": [1, 2],
    "inner": {"size": 3}, "anything": object,
}  # fmt: skip


def test_what_fits_is_accepted():
    check("", RIGHT, Outer)
    check("", RIGHT | {"limit": 0, "share": 0}, Outer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "part.size=0 must be a whole number of at least 1"),
        ({"size": True}, "part.size=True must be a whole number of at least 1"),
        ({"size": 1.0}, "part.size=1.0 must be a whole number of at least 1"),
        ({"flag": 1}, "part.flag=1 must be true or false"),
        ({"share": 1}, "part.share=1 must be a number of at least 0 and below 1"),
        ({"share": float("nan")}, "part.share=nan must be a number of at least 0 and below 1"),
        ({"level": 6}, "part.level=6 must be a whole number of at least 2 and at most 5"),
        ({"limit": -1}, "part.limit=-1 must be a whole number of at least 0"),
        ({"kind": "c"}, "part.kind=c must be one of a, b"),
        ({"name": 5}, "part.name=5 must be a string"),
        ({"sizes": []}, r"part.sizes=\[\] must be a list of at least one"),
        ({"sizes": [1, 0]}, "part.sizes=0 must be a whole number of at least 1"),
        ({"inner": {"size": 0}}, "part.inner.size=0 must be a whole number of at least 1"),
        ({"inner": {"size": 1, "more": 2}}, "part.inner.more is unknown; the keys of part.inner are size"),
        ({"inner": None}, "part.inner=None must hold the keys size"),
        ({"other": 1}, "part.other is unknown; the keys of part are anything, "),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_key_and_value(change, message):
    with pytest.raises(UserError, match=f"^{message}"):
        check("part", RIGHT | change, Outer)


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match=r"^flag is missing; the keys are anything, "):
        check("", {key: value for key, value in RIGHT.items() if key != "flag"}, Outer)
