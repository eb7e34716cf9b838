"""JSON that others may have written: the one place where the package parses files of it."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says; whatever is wrong with it is a ValueError.

    Python's parser raises RecursionError for what is nested some thousand times.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_json_mapping(text: str | bytes) -> dict[str, Any]:
    """Return a mapping; anything else is a ValueError."""
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} where names with values are expected")
    return found
