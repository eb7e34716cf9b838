"""What every section of the configuration is made of: refused keys, common types of values."""

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
"""What every library takes as a whole number."""

Positive = Annotated[int, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, le=10**12)]
"""Of random numbers."""
Seconds = Annotated[float, Field(gt=0, le=1e8)]
"""A time-out: three years at most, which every clock takes."""
Width = Annotated[int, Field(gt=0, le=2048)]
"""Channels, heads or groups of a layer."""
Depth = Annotated[int, Field(gt=0, le=64)]
"""Blocks of a stage, one after the other."""
Ratio = Annotated[float, Field(gt=0, le=64)]
"""Hidden width of an MLP over its channels."""
Side = Annotated[int, Field(gt=0, le=2**15)]
"""Pixels of a picture's side."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of a term of the loss."""


def _whole_from_one(value: float) -> float:
    """Refuse what is neither whole nor below 1; make an integer of what is whole."""
    if 0 < value < 1:
        return value
    if not value.is_integer():
        raise ValueError(f"{value:g} is neither a whole number nor a share below 1")
    return int(value)


StepsOrShare = Annotated[
    float,
    Field(ge=0, le=MOST),
    AfterValidator(_whole_from_one),
    PlainSerializer(lambda value: value, return_type=int | float),
]
"""A whole number of steps, or, below 1, a share of all steps."""


def _path_or_uri(value: object) -> object:
    """Make a path of a text that is not a URI."""
    return Path(value) if isinstance(value, str) and not is_remote(value) else value


Place = Annotated[
    Path | str,
    BeforeValidator(_path_or_uri),
    PlainSerializer(without_keys, return_type=str, when_used="json"),
]
"""A path, or the URI of a folder in an object store such as s3://bucket/folder."""


def listed(value: object) -> object:
    """Make a list of what stands alone: one name or path."""
    return [value] if isinstance(value, str | Path) else value


def _no_uri(value: object) -> object:
    """Refuse the URI of what is read from this machine alone; its keys would stay in the path."""
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
"""A name, or a path that no name can be mistaken for: `./small` stays as it was written."""


def _plain_name(value: str) -> str:
    if fault := fault_of_name(value):
        raise ValueError(f"{value[:80]!r} cannot be the name of a folder: {fault}")
    return value


def _plain_path(value: str) -> str:
    if fault := fault_of_path(value):
        raise ValueError(f"{value[:80]!r} cannot be the name of a folder: {fault}")
    return value


PlainName = Annotated[str, AfterValidator(_plain_name)]
"""The name of a folder in a folder that is known."""
PlainPath = Annotated[str, AfterValidator(_plain_path)]
"""Names of folders, each in the one before, divided by slashes."""


def _shareable(value: Any) -> Any:
    """Return what JSON holds, with every URI as it may be shared."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: _shareable(inner) for key, inner in value.items()}
    return [_shareable(inner) for inner in value] if isinstance(value, list | tuple) else value


class Section(BaseModel):
    """Refuse unknown keys and changes after construction; what is written down holds no keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_serializer("*", mode="wrap", when_used="json")
    def _without_secrets(self, value: Any, written: SerializerFunctionWrapHandler) -> Any:
        return _shareable(written(value))
