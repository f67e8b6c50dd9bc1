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
    problems = sorted(
        error.errors(include_url=False), key=lambda one: -len(one["loc"])
    )  # of a union, what came closest
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])  # a misspelt key first
    cause = problem.get("ctx", {}).get("error")  # of a validator of ours
    if isinstance(cause, UserError):
        return cause
    schema, key = inlined(kind.model_json_schema()), section
    parent, parent_key = schema, key
    for step in problem["loc"]:
        found = child(schema, step)
        if found is None and not (problem["type"] == "extra_forbidden" and step == problem["loc"][-1]):
            continue  # the branch of a union, which pydantic names, too
        parent, parent_key = schema, key
        schema = found or {}
        key = key if isinstance(step, int) else f"{key}.{step}".lstrip(".")
    if problem["type"] in ("extra_forbidden", "missing"):
        what = "unknown" if problem["type"] == "extra_forbidden" else "missing"
        return UserError(f"{key} is {what}; the keys{' of ' * bool(parent_key)}{parent_key} are {names(parent)}")
    value = problem["input"]
    shown = repr(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else value  # "3" is no number
    return UserError(f"{key or 'the config'}={shown} must {cause or allowed(schema)}")


def inlined(schema: Any, definitions: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - any part of a schema
    """Return a JSON schema with every reference replaced by what it refers to."""
    if isinstance(schema, list):
        return [inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    definitions = definitions or schema.get("$defs", {})
    if "$ref" in schema:
        return inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: inlined(value, definitions) for key, value in schema.items() if key != "$defs"}


def child(schema: Mapping[str, Any], step: int | str) -> dict[str, Any] | None:
    """Return the JSON schema of a key or of an entry of a list; None if there is none."""
    branches = schema.get("anyOf", [schema])
    if isinstance(step, str):
        return next((one["properties"][step] for one in branches if step in one.get("properties", {})), None)
    return next((one["items"] for one in branches if "items" in one), None)


def names(schema: Mapping[str, Any]) -> str:
    """Return the names of the keys of a section, which may be optional; empty if there are none."""
    return ", ".join(sorted(key for one in schema.get("anyOf", [schema]) for key in one.get("properties", {})))


NOUNS = {"integer": "a whole number", "number": "a number", "string": "a string", "boolean": "true or false",
         "null": "null", "array": "a list", "object": "a mapping"}  # fmt: skip
BOUNDS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
SPELT = {True: "true", False: "false", None: "null"}


def allowed(schema: Mapping[str, Any]) -> str:
    """Return what a JSON schema allows, such as ``be a number of at least 0 and below 1``."""
    return f"hold the keys {names(schema)}" if "properties" in schema else f"be {described(schema)}"


def described(schema: Mapping[str, Any]) -> str:
    """Return what a JSON schema of a value allows as a phrase."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(described, schema["anyOf"])))
    if "properties" in schema:
        return f"a mapping with the keys {names(schema)}"
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if choices:
        words = [SPELT[one] if isinstance(one, bool) or one is None else str(one) for one in choices]
        return "one of " * (len(words) > 1) + ", ".join(words)
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
