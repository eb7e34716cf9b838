"""What every section of the configuration is made of: refused keys, common types of values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from vrtspike.uri import is_remote, without_keys

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _whole_from_one(value: float) -> float:
    """Refuse what is neither whole nor below 1; make an integer of what is whole."""
    if 0 < value < 1:
        return value
    if not value.is_integer():
        raise ValueError(f"{value:g} is neither a whole number nor a share below 1")
    return int(value)


StepsOrShare = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
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


NameOrPath = Annotated[
    str, BeforeValidator(lambda value: str(value.absolute()) if isinstance(value, Path) else value)
]
"""A name, or a path that no name can be mistaken for: `./small` stays as it was written."""


class Section(BaseModel):
    """Refuse unknown keys and changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
