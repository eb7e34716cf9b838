"""What the data's descriptions, manifests and notes are made of: records that nothing changes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """Refuse unknown keys and changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def first_fault(error: ValidationError) -> tuple[str, Any]:
    """Return the dotted key of the first fault of a file, and what pydantic says of it."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])) or "the file", first
