"""The base class of all sections of the configuration, and common types of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    field_serializer,
)

from vrtspike.storage.names import fault_of_name, fault_of_path
from vrtspike.storage.uri import is_remote, without_keys, without_secrets

MOST = 2**31 - 1
"""Greatest whole number; all libraries that get a setting accept it."""

Positive = Annotated[int, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, le=10**12)]
"""Seed of random numbers."""
Seconds = Annotated[float, Field(gt=0, le=1e8)]
"""A time-out of at most three years, which all timers accept."""
Width = Annotated[int, Field(gt=0, le=2048)]
"""Number of channels, heads or groups of a layer."""
Depth = Annotated[int, Field(gt=0, le=64)]
"""Number of blocks in a stage."""
Ratio = Annotated[float, Field(gt=0, le=64)]
"""Hidden width of an MLP divided by its channels."""
Side = Annotated[int, Field(gt=0, le=2**15)]
"""Height or width of an image in pixels."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Weight of a loss term, or another factor."""


def _check_steps_or_share(value: float) -> float:
    """Refuse a number above 1 that is not whole; convert a whole number to an integer."""
    if 0 < value < 1:
        return value
    if not value.is_integer():
        raise ValueError(f"{value:g} is neither a whole number nor a share below 1")
    return int(value)


StepsOrShare = Annotated[
    float,
    Field(ge=0, le=MOST),
    AfterValidator(_check_steps_or_share),
    PlainSerializer(lambda value: value, return_type=int | float),
]
"""A whole number of steps; below 1, a fraction of all steps."""


def _path_or_uri(value: object) -> object:
    """Convert a string to a path, unless it is a URI."""
    return Path(value) if isinstance(value, str) and not is_remote(value) else value


Place = Annotated[
    Path | str,
    BeforeValidator(_path_or_uri),
    PlainSerializer(without_keys, return_type=str, when_used="json"),
]
"""A path, or the URI of a folder in an object store such as s3://bucket/folder."""


def listed(value: object) -> object:
    """Put a single name or path into a list; return a list unchanged."""
    return [value] if isinstance(value, str | Path) else value


def _no_uri(value: object) -> object:
    """Refuse a URI where only a local path works; otherwise its access keys would be saved."""
    if isinstance(value, str) and is_remote(value):
        raise ValueError("a path on this machine is expected, and this is a URI")
    return value


LocalPath = Annotated[Path, BeforeValidator(_no_uri)]
"""A path on this machine."""

NameOrPath = Annotated[
    str,
    BeforeValidator(lambda value: str(value.absolute()) if isinstance(value, Path) else value),
    BeforeValidator(_no_uri),
]
"""A name or a path, as it was written: `small` is a name and `./small` a path."""


def _plain_name(value: str) -> str:
    if fault := fault_of_name(value):
        raise ValueError(f"{value[:80]!r} cannot be the name of a folder: {fault}")
    return value


def _plain_path(value: str) -> str:
    if fault := fault_of_path(value):
        raise ValueError(f"{value[:80]!r} cannot be the name of a folder: {fault}")
    return value


PlainName = Annotated[str, AfterValidator(_plain_name)]
"""The name of a folder, without slashes."""
PlainPath = Annotated[str, AfterValidator(_plain_path)]
"""A relative path of plain folder names, separated by slashes."""


def _shareable(value: Any) -> Any:
    """Return a JSON value with the secrets removed from all URIs in it."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: _shareable(inner) for key, inner in value.items()}
    return [_shareable(inner) for inner in value] if isinstance(value, list | tuple) else value


class Section(BaseModel):
    """A frozen section of settings that refuses unknown keys.

    Its JSON form contains no secrets of URIs.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_serializer("*", mode="wrap", when_used="json")
    def _without_secrets(self, value: Any, serialize: SerializerFunctionWrapHandler) -> Any:
        return _shareable(serialize(value))
