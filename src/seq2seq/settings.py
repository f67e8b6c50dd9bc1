"""Sections of a config as pydantic models, and what pydantic refuses as one line.

A section is a subclass of `Settings`, beside the code that uses its values.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seq2seq.errors import UserError

Count = Annotated[int, Field(ge=1, le=2**63 - 1)]
"""A whole number of at least 1."""

Natural = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A whole number of at least 0."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A number of at least 0 and below 1."""

Probability = Annotated[float, Field(ge=0, le=1)]
"""A number of at least 0 and at most 1."""

HUGE = 2**63 - 1


class Settings(BaseModel):
    """A section of a config: every key is named, a value has the type of its annotation, and a number is finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True, protected_namespaces=())


Section = TypeVar("Section", bound=BaseModel)
Choice = TypeVar("Choice")


def read_settings(kind: type[Section], values: object, section: str = "") -> Section:
    """Return a section of a config as an object.

    Args:
        kind: The class of the section.
        values: Its content.
        section: Its dotted key, for errors; empty for the whole config.

    Raises:
        UserError: If a key is unknown or missing, or a value is not allowed.

    Example:
        >>> class Loading(Settings):
        ...     batch_size: Count
        >>> read_settings(Loading, {"batch_size": 8}, "data").batch_size
        8
        >>> read_settings(Loading, {"batch_size": 0}, "data")
        Traceback (most recent call last):
        seq2seq.errors.UserError: data.batch_size=0 must be a whole number of at least 1
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise one_line(error, kind, section) from None


def one_line(error: ValidationError, kind: type[BaseModel], section: str = "") -> UserError:
    """Return the first problem that pydantic has found as our error: the key, its value, and what is allowed."""
    problems = error.errors(include_url=False)
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])  # a misspelt key first
    cause = problem.get("ctx", {}).get("error")  # of a validator of ours
    if isinstance(cause, UserError):
        return cause
    root = kind.model_json_schema()
    schema, key, parent = root, section, ({}, section)
    for step in problem["loc"]:
        parent = schema, key
        found = child(schema, step, root)
        if found is None and problem["type"] != "extra_forbidden":
            break  # the branch of a union, which pydantic names, too
        schema = found or {}
        key = key if isinstance(step, int) else f"{key}.{step}".lstrip(".")
    if problem["type"] in ("extra_forbidden", "missing"):
        what = "unknown" if problem["type"] == "extra_forbidden" else "missing"
        keys = ", ".join(sorted(properties(parent[0], root)))
        return UserError(f"{key} is {what}; the keys{' of ' * bool(parent[1])}{parent[1]} are {keys}")
    value = problem["input"]
    shown = repr(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else value  # "3" is no number
    return UserError(f"{key or 'the config'}={shown} must {cause or allowed(schema, root)}")


def child(schema: Mapping[str, Any], step: int | str, root: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON schema of a key or of an entry of a list; None if there is none."""
    if isinstance(step, str):
        return properties(schema, root).get(step)
    lists = [one for one in schema.get("anyOf", [schema]) if "items" in one]
    return lists[0]["items"] if lists else None


def properties(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schemas of the keys of a section, which may be optional."""
    branches = [resolved(one, root) for one in schema.get("anyOf", [schema])]
    return next((one["properties"] for one in branches if "properties" in one), {})


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow the reference of a JSON schema, if it is one."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema


NOUNS = {"integer": "a whole number", "number": "a number", "string": "a string", "boolean": "true or false",
         "null": "null", "array": "a list", "object": "a mapping"}  # fmt: skip
BOUNDS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
SPELT = {True: "true", False: "false", None: "null"}


def allowed(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Return what a JSON schema allows, such as ``be a number of at least 0 and below 1``."""
    keys = properties(schema, root)
    return f"hold the keys {', '.join(sorted(keys))}" if keys else f"be {described(schema)}"


def described(schema: Mapping[str, Any]) -> str:
    """Return what a JSON schema of a value allows as a phrase."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(described, schema["anyOf"])))
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if choices:
        names = [SPELT[one] if isinstance(one, bool) or one is None else str(one) for one in choices]
        return "one of " * (len(names) > 1) + ", ".join(names)
    noun = NOUNS[schema.get("type", "object")]
    if noun == "a list":
        return noun + " of at least one" * bool(schema.get("minItems")) + f" (each {described(schema['items'])})"
    limits = [f"{word} {schema[name]:g}" if isinstance(schema[name], float) else f"{word} {schema[name]}"
              for name, word in BOUNDS.items() if name in schema and abs(schema[name]) < HUGE]  # fmt: skip
    return f"{noun} {' and '.join(limits)}".rstrip()


def choose(key: str, name: object, registry: Mapping[str, Choice]) -> Choice:
    """Return an entry of a registry.

    Raises:
        UserError: If it has none of that name.
    """
    if not isinstance(name, str) or name not in registry:
        raise UserError(f"{key}={name} must be one of {', '.join(registry)}")
    return registry[name]


def resolve_config(config: DictConfig) -> dict[str, Any]:
    """Return a config as numbers, strings, lists and dicts, with every interpolation resolved.

    Raises:
        UserError: If a mandatory value is missing or an interpolation cannot be resolved.
    """
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # pyright: ignore[reportReturnType]
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing: give {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
