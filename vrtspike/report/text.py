"""Texts that others chose (names of clips, sources, settings) between texts of ours.

In: any text. Out: the same text, which cannot turn round what stands beside it. Templates do this
to every value and then escape it as HTML.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Invisible characters that change the direction of text."""
_LINKS = re.compile(r"(?<=\])(?=[(\[:])|(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
"""Where a backslash keeps Markdown from making a link: of brackets, of addresses, of mail."""
_ISOLATE, _END = "\u2068", "\u2069"


def isolated(text: str) -> str:
    """Set a text apart from its neighbours if any of its letters run from right to left."""
    if text.isascii():
        return text
    shown = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    apart = shown != text or any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in shown)
    return f"{_ISOLATE}{shown}{_END}" if apart else shown


def markdown(text: str) -> str:
    """Return a text as Markdown on one line, for a paragraph, a heading or the cell of a table."""
    shown = _CONTROLS.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    plain = shown.replace("\\|", "&#92;|").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(_LINKS.sub(r"\\", plain).split())
