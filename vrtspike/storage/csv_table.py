"""CSV tables as spreadsheets and other programs write them.

In: a file and the names of its columns. Out: lines by their number, with the cells in the order of
the names. Read: UTF-8 and UTF-16 with a mark, line ends of any kind, blank lines, comments (`#`
first), commas, semicolons or tabs, Excel's `sep=;`, columns in any order, empty columns at the end,
a Ctrl-Z at the end, decimal commas where no comma divides the cells. Everything else is refused.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from vrtspike.errors import DataFormatError, one_line

DELIMITERS = (",", ";", "\t")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_table(path: Path, columns: Sequence[str], what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line below the header; `what` is for errors."""
    lines = _lines(path, what)
    header = ",".join(columns)
    number, cells, delimiter = next(lines, (1, [], ","))
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if sorted(names) != sorted(columns):
        raise DataFormatError(
            f"the {what} has another header",
            where=f"{path}, line {number}",
            got=delimiter.join(names)[:200] or "no line",
            expected=header,
            fix=f"write {header} as the first line",
        )
    places = [names.index(column) for column in columns]
    for number, cells, delimiter in lines:
        more = cells[len(names) :]
        if len(cells) < len(names) or any(cell.strip() for cell in more):
            raise DataFormatError(
                "the line is no entry",
                where=f"{path}, line {number}",
                got=f"{len(cells)} fields: {delimiter.join(cells)[:200]}",
                expected=f"{len(names)}: {delimiter.join(names)}",
                fix="correct the line, or delete it",
            )
        found = [cells[place].strip() for place in places]
        yield number, found if delimiter == "," else [_with_point(cell) for cell in found]


def whole_number(cell: str) -> int:
    """Read a whole number, also as `3.0`; anything else is a ValueError."""
    try:
        return int(cell)
    except ValueError:
        value = float(cell)
    if not value.is_integer():
        raise ValueError(f"a whole number, not {cell}")
    return int(value)


def _lines(path: Path, what: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield number, cells and delimiter of each line that is not blank and no comment."""
    text = _text(path, what)
    delimiter: str | None = None
    reader = None
    source = _Lines(text)
    for line in source:
        if line.startswith("#") or not line.strip(" ,;\t\r\n"):
            continue
        if delimiter is None and line.strip().strip('"').lower().startswith("sep="):
            continue
        if delimiter is None:
            counts = {one: line.count(one) for one in DELIMITERS}
            delimiter = max(counts, key=lambda one: counts[one])
        source.back()
        reader = csv.reader(source, strict=True, delimiter=delimiter)
        try:
            cells = next(reader)
        except csv.Error as error:
            raise DataFormatError(
                "not readable as CSV",
                where=f"{path}, line {source.number}",
                got=one_line(error),
                fix="correct the quotes of this line",
            ) from error
        yield source.number, cells, delimiter


class _Lines:
    """Lines of a text with their numbers; the last one can be taken again."""

    def __init__(self, text: str) -> None:
        self._lines = list(io.StringIO(text, newline=""))
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.number >= len(self._lines):
            raise StopIteration
        self.number += 1
        return self._lines[self.number - 1]

    def back(self) -> None:
        """Let the last line come again."""
        self.number -= 1


def _text(path: Path, what: str) -> str:
    """Decode a file as its mark says; a Ctrl-Z at its end is the end."""
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
        return content.decode(encoding).rstrip("\x1a \t\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(
            f"cannot read the {what}",
            where=path,
            got=getattr(error, "strerror", None) or one_line(error, 200),
            fix="save it as CSV in UTF-8",
        ) from error


def _with_point(cell: str) -> str:
    """Return a number with a decimal comma as one with a point; any other text as it is."""
    whole, comma, rest = cell.partition(",")
    digits = (whole.lstrip("+-") + rest).replace("E", "e").replace("e-", "").replace("e", "")
    return f"{whole}.{rest}" if comma and digits.isdecimal() else cell
