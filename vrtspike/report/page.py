"""From values to HTML: the templates beside this file, filled in.

Every value that a template prints is isolated (see `vrtspike.report.text`) and escaped, unless it
is `Markup`, which only templates make. A page is one file with its style, script and pictures in
it, light and dark; nothing is fetched from a network.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vrtspike.report.text import isolated


class Cell(NamedTuple):
    """A cell of a table: its text, and the class of its look."""

    text: str
    style: str = ""


def fill(template: str, **values: Any) -> Markup:
    """Return a template filled in with values."""
    return Markup(TEMPLATES.get_template(template).render(values))


def image_uri(kind: str, content: bytes) -> Markup:
    """Return an encoded image (`png`, `webp`, `jpeg`) as a URI that holds it."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def signed(value: float) -> str:
    """Write a gain with its sign."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def readable(value: Any, name: str = "") -> str | dict[str, Any]:
    """Return a fact as text; a mapping, also one at the end of a text as JSON, as a mapping."""
    match value:
        case Mapping():
            return {key.replace("_", " "): readable(inner, key) for key, inner in value.items()}
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            separator = " × " if "size" in name else ", "
            return separator.join(str(readable(inner)) for inner in value) or "none"
        case int():
            return f"{value:,}" if "seed" not in name else str(value)
        case str() if value.endswith("}") and "{" in value:
            before, brace, rest = value.partition("{")
            try:
                inner = json.loads(brace + rest)
            except ValueError:
                return value
            about = before.strip().removesuffix(":")
            facts = readable(inner)
            if isinstance(facts, dict):
                return {"what": about, **facts} if about else facts
    return str(value)


def _safe(value: Any) -> Any:
    """Return what a template prints of a value, which is then escaped."""
    return value if hasattr(value, "__html__") else isolated(str(value))


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_safe,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"signed": signed, "counted": counted, "readable": readable}
