"""Settings: what each annotation allows, and that a mistake is one line with its key."""

from typing import Annotated, Any, Literal

import pytest
from conftest import model_settings
from pydantic import Field, model_validator

from seq2seq.errors import UserError
from seq2seq.model import ModelSettings
from seq2seq.settings import Count, Fraction, Natural, Probability, Settings, choose, read_settings


class Inner(Settings):
    size: Count


class Outer(Inner):
    flag: bool
    share: Fraction
    level: Annotated[int, Field(ge=2, le=5)]
    limit: Natural | None
    kind: Literal["a", "b"]
    name: str
    sizes: Annotated[list[Count], Field(min_length=1)]
    inner: Inner
    anything: Any
    chance: Probability = 1
    ratio: float = 1
    count: int = 1
    fast: Literal["auto", False] = "auto"
    part: Inner | None = None
    parts: list[Inner] | None = None
    texts: str | list[str] = ""
    either: str | Inner = ""

    @model_validator(mode="after")
    def check_level(self):
        if self.level < self.size:
            raise UserError(f"part.level={self.level} must be at least part.size={self.size}")
        return self


RIGHT = {
    "size": 1, "flag": True, "share": 0.5, "level": 5, "limit": None, "kind": "b", "name": "", "sizes": [1, 2],
    "inner": {"size": 3}, "anything": object,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {}, {"limit": 0, "share": 0, "chance": 0}, {"part": {"size": 1}, "parts": [{"size": 2}]}, {"texts": ["a"]},
        {"ratio": 1e30, "fast": False, "either": {"size": 5}},
    ],
)  # fmt: skip
def test_what_fits_is_accepted(change):
    read = read_settings(Outer, RIGHT | change).model_dump()

    assert {key: read[key] for key in RIGHT | change} == RIGHT | change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "part.size=0 must be a whole number of at least 1"),
        ({"size": True}, "part.size=true must be a whole number of at least 1"),
        ({"size": 1.0}, "part.size=1.0 must be a whole number of at least 1"),
        ({"size": "3"}, "part.size='3' must be a whole number of at least 1"),
        ({"size": 10**40}, f"part.size={10**40} must be a whole number of at least 1"),
        ({"count": 10**12 * 1.5}, "part.count=1500000000000.0 must be a whole number"),
        ({"flag": 1}, "part.flag=1 must be true or false"),
        ({"share": 1}, "part.share=1 must be a number of at least 0 and below 1"),
        ({"share": float("nan")}, "part.share=nan must be a number of at least 0 and below 1"),
        ({"chance": 1.5}, "part.chance=1.5 must be a number of at least 0 and at most 1"),
        ({"ratio": float("inf")}, "part.ratio=inf must be a number"),
        ({"ratio": float("nan")}, "part.ratio=nan must be a number"),
        ({"ratio": True}, "part.ratio=true must be a number"),
        ({"level": 6}, "part.level=6 must be a whole number of at least 2 and at most 5"),
        ({"limit": -1}, "part.limit=-1 must be a whole number of at least 0 or null"),
        ({"kind": "c"}, "part.kind=c must be one of a, b"),
        ({"fast": True}, "part.fast=true must be one of auto, false"),
        ({"name": 5}, "part.name=5 must be a string"),
        ({"sizes": []}, "part.sizes=[] must be a list of at least one (each a whole number of at least 1)"),
        ({"sizes": [1, 0]}, "part.sizes=0 must be a whole number of at least 1"),
        ({"inner": {"size": 0}}, "part.inner.size=0 must be a whole number of at least 1"),
        ({"inner": {"size": 1, "more": 2}}, "part.inner.more is unknown; the keys of part.inner are size"),
        ({"inner": {}}, "part.inner.size is missing; the keys of part.inner are size"),
        ({"inner": None}, "part.inner=null must be a mapping with the keys size"),
        ({"part": {"size": 0}}, "part.part.size=0 must be a whole number of at least 1"),
        ({"part": {"more": 0}}, "part.part.more is unknown; the keys of part.part are size"),
        ({"part": 5}, "part.part=5 must be a mapping with the keys size or null"),
        ({"parts": [{"size": 1}, {"size": 0}]}, "part.parts.size=0 must be a whole number of at least 1"),
        ({"parts": [{"size": 1, "a": 0}]}, "part.parts.a is unknown; the keys of part.parts are size"),
        ({"texts": 5}, "part.texts=5 must be a string or a list (each a string)"),
        ({"texts": [5]}, "part.texts=5 must be a string"),
        ({"either": {"size": 0}}, "part.either.size=0 must be a whole number of at least 1"),
        ({"either": {"more": 0}}, "part.either.more is unknown; the keys of part.either are size"),
        ({"either": 5}, "part.either=5 must be a string or a mapping with the keys size"),
        ({"other": 1}, "part.other is unknown; the keys of part are anything, "),
        ({"size": 4, "level": 3}, "part.level=3 must be at least part.size=4"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_key_and_value(change, message):
    with pytest.raises(UserError) as caught:
        read_settings(Outer, RIGHT | change, "part")

    assert str(caught.value) == message or (message.endswith(" ") and str(caught.value).startswith(message))


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match=r"^flag is missing; the keys are anything, "):
        read_settings(Outer, {key: value for key, value in RIGHT.items() if key != "flag"})


@pytest.mark.parametrize("values", [None, 5, [1], "text"])
def test_what_is_no_section_is_refused(values):
    with pytest.raises(UserError, match=r"^inner=.* must be a mapping with the keys size$"):
        read_settings(Inner, values, "inner")


def test_an_entry_of_a_registry_is_chosen_by_name():
    assert choose("model.bridge", "b", {"a": 1, "b": 2}) == 2
    for name in ("c", None, ["a"]):
        with pytest.raises(UserError, match=r"model\.bridge=.* must be one of a, b"):
            choose("model.bridge", name, {"a": 1, "b": 2})


@pytest.mark.parametrize("key", ["embedding_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_size_that_no_memory_holds_is_refused(part, key):
    settings = model_settings(**{part: {key: 10**12}})

    with pytest.raises(
        UserError, match=rf"model\.{part}\.{key}=1000000000000 must be a whole number of at least 1 and"
    ):
        read_settings(ModelSettings, settings, "model")
