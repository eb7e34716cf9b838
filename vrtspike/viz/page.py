"""The frame of every page: one HTML file with its style, script and pictures in it, light and dark.

Styles and scripts lie beside this file. Nothing is fetched from a network.
"""

from __future__ import annotations

import base64
from html import escape
from importlib.resources import files


def page(title: str, sections: str, style: str = "") -> str:
    """Return a page of sections (HTML); `style` is added to the common one."""
    folder = files("vrtspike.viz")
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
