"""Sections of a config as pydantic models, and what pydantic refuses as one line.

A section is a subclass of `Settings`, beside the code that uses its values.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seq2seq.errors import UserError

HUGE = 2**63 - 1  # a bound that no error mentions

Count = Annotated[int, Field(ge=1, le=HUGE)]
"""A whole number of at least 1."""

Natural = Annotated[int, Field(ge=0, le=HUGE)]
"""A whole number of at least 0."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A number of at least 0 and below 1."""

Probability = Annotated[float, Field(ge=0, le=1)]
"""A number of at least 0 and at most 1."""


class Settings(BaseModel):
    """A section of a config: every key is named, a value has the type of its annotation, and a number is finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True, protected_namespaces=())


Workers = Natural | Literal["auto"]
"""A number of worker processes; see `seq2seq.decoding.Inference`."""


class CommandSettings(Settings):
    """The keys that every command has; see `seq2seq.runs.threads` and `seq2seq.runs.parts`."""

    threads: Count | Literal["auto"] = "auto"
    parts: str | list[str] | None = None


Section = TypeVar("Section", bound=BaseModel)
Choice = TypeVar("Choice")


def read_settings(kind: type[Section], values: object, section: str = "") -> Section:
    """Return a section of a config as an object; errors begin with its dotted key, empty for the whole config.

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
    # A misspelt key first; of a union, what came closest.
    problem = max(error.errors(include_url=False), key=lambda one: (one["type"] == "extra_forbidden", len(one["loc"])))
    cause = problem.get("ctx", {}).get("error")  # of a validator of ours
    if isinstance(cause, UserError):
        return cause
    schema, path, key = kind.model_json_schema(), list(problem["loc"]), section
    definitions = schema.get("$defs", {})
    branches = branches_of(schema, definitions)
    fault = {"extra_forbidden": "unknown", "missing": "missing"}.get(problem["type"])
    name = path.pop() if fault else None
    for step in path:
        found = [one.get("items") if isinstance(step, int) else properties(one).get(step) for one in branches]
        if any(found):  # otherwise, it is the branch of a union, which pydantic names, too
            branches = [branch for one in found if one for branch in branches_of(one, definitions)]
            key = key if isinstance(step, int) else f"{key}.{step}".lstrip(".")
    if fault:
        keys = ", ".join(sorted(key for one in branches for key in properties(one)))
        return UserError(f"{f'{key}.{name}'.lstrip('.')} is {fault}; the keys{' of ' * bool(key)}{key} are {keys}")
    value = problem["input"]
    if value is None or isinstance(value, bool):
        value = json.dumps(value)  # as it is given, null and true
    elif isinstance(value, str) and value.lstrip("-").isdecimal():
        value = repr(value)  # "3" is no number
    return UserError(f"{key or 'the config'}={value} must be {described(branches, definitions)}")


def branches_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the branches of a union, or the schema itself, with references replaced by what they refer to."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return [branch for one in schema.get("anyOf", []) for branch in branches_of(one, definitions)] or [schema]


def properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of each key of a section."""
    return schema.get("properties", {})


NOUNS = {"integer": "a whole number", "number": "a number", "string": "a string", "boolean": "true or false",
         "null": "null", "array": "a list", "object": "a mapping"}  # fmt: skip
BOUNDS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def described(branches: Iterable[Mapping[str, Any]], definitions: Mapping[str, Any]) -> str:
    """Return what JSON schemas allow as a phrase, such as ``a number of at least 0 and below 1 or null``."""
    phrases = []
    for schema in branches:
        phrase = NOUNS[schema.get("type", "object")]
        if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
            words = [one if isinstance(one, str) else json.dumps(one) for one in choices]
            phrase = "one of " * (len(words) > 1) + ", ".join(words)
        elif schema.get("minLength"):
            phrase += " that is not empty"
        elif "properties" in schema:
            phrase += f" with the keys {', '.join(sorted(schema['properties']))}"
        elif phrase == "a list":
            entry = described(branches_of(schema["items"], definitions), definitions)
            phrase += " of at least one" * bool(schema.get("minItems")) + f" (each {entry})"
        limits = [f"{word} {schema[name]:.12g}" for name, word in BOUNDS.items() if abs(schema.get(name, HUGE)) < HUGE]
        phrases.append(f"{phrase} {' and '.join(limits)}".rstrip())
    return " or ".join(dict.fromkeys(phrases))


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
