"""Cells of CSV files that spreadsheets take for text, and not for formulas.

A name such as `=HYPERLINK(...)` would be computed by whoever opens the file. It is written with an
apostrophe in front, as one would type it; `cell_text` reads it back. Numbers stay as they are.
"""

from __future__ import annotations

import re

_FORMULA = re.compile("'*[=+@\\-\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a formula begins, also with apostrophes before it, so that they can be read back."""
_NUMBER = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")


def csv_cell(value: object) -> object:
    """Return what to write for a value."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def cell_text(cell: str) -> str:
    """Return the text that a cell stands for."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
