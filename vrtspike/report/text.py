"""Texts that others chose (names of clips, sources, settings) in pages of ours.

In: any text. Out: HTML or Markdown that shows it, and does nothing else: no markup, no link, and no
turning round of what stands beside it.
"""

from __future__ import annotations

import html
import re
import unicodedata

_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What changes the direction of text, and is not seen itself."""
_ISOLATE, _END = "\u2068", "\u2069"
_LINKS = re.compile(r"(?<=\])(?=[(\[:])|(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
"""Where a backslash keeps Markdown from making a link: of brackets, of addresses, of mail."""


def escape(text: str) -> str:
    """Return a text as HTML, for elements and for attributes in double quotes.

    Where letters run from right to left, or something says so, the text is set apart from its
    neighbours; what is not seen is written out.
    """
    if text.isascii():
        return html.escape(text)
    shown = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    apart = shown != text or any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in shown)
    safe = html.escape(shown)
    return f"{_ISOLATE}{safe}{_END}" if apart else safe


def markdown(text: str) -> str:
    """Return a text as Markdown on one line, for a paragraph, a heading or the cell of a table."""
    shown = _CONTROLS.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    plain = shown.replace("\\|", "&#92;|").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(_LINKS.sub(r"\\", plain).split())
