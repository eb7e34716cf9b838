"""The frame of every page: one HTML file with its style, script and pictures in it, light and dark.

Styles and scripts lie beside this file. Nothing is fetched from a network.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from vrtspike.report.text import escape


def page(title: str, sections: str, style: str = "") -> str:
    """Return a page of sections (HTML); `style` is added to the common one."""
    folder = files("vrtspike.report")
    common = (folder / "report.css").read_text(encoding="utf-8")
    script = (folder / "report.js").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{common}
{style}
</style>
</head>
<body>
{sections}
<script>
{script}
</script>
</body>
</html>
"""


def image_uri(kind: str, content: bytes) -> str:
    """Return an encoded image (`png`, `webp`, `jpeg`) as a URI that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def header(kind: str, title: str, about: str) -> str:
    """Return the head of a page; `about` is HTML, the others are text."""
    return f"""
<header class="page">
  <div><p class="eyebrow">{escape(kind)}</p><h1>{escape(title)}</h1>
  <p class="about">{about}</p></div>
  <button type="button" class="theme" aria-label="switch between light and dark">◐</button>
</header>"""


def tiles(entries: list[tuple[str, str, str]]) -> str:
    """Return a row of big numbers: value, unit, what it is."""
    return (
        '<section class="tiles">'
        + "".join(
            f'<div class="tile"><p class="value">{escape(value)}<small>{escape(unit)}</small></p>'
            f"<p>{escape(text)}</p></div>"
            for value, unit, text in entries
        )
        + "</section>"
    )


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return what colours stand for: style and text."""
    inside = "".join(
        f'<span><i class="key style-{style}"></i>{escape(text)}</span>' for style, text in entries
    )
    return f'<p class="legend">{inside}</p>'


def facts(entries: Mapping[str, Any]) -> str:
    """Return a list of names and values; a mapping among the values is one entry each."""
    rows = []
    for name, value in entries.items():
        if isinstance(value, Mapping):
            inner = {f"{name}, {key}": entry for key, entry in value.items()}
            rows += [_fact(key, entry) for key, entry in inner.items()]
        else:
            rows.append(_fact(name, value))
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _fact(name: str, value: Any) -> str:
    match value:
        case None:
            text = "none"
        case Mapping():
            text = ", ".join(f"{k.replace('_', ' ')} {_plain(v)}" for k, v in value.items())
        case list() | tuple():
            text = " × ".join(map(str, value)) if "size" in name else ", ".join(map(str, value))
        case _:
            text = _plain(value)
    return f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(text)}</dd>"


def _plain(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else str(value)
