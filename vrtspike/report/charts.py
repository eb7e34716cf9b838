"""Charts as SVG text: curves over steps or levels, dots by sequence, dots over a number or by kind.

In: numbers and names. Out: an `<svg>` whose colours are classes (`series-<style>`) that the page
defines for light and dark. Every mark says its value in a `<title>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vrtspike.report.text import escape

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
ROW, NAMES = 30, 168


@dataclass(frozen=True)
class Line:
    """One curve: its name, the style of its colour, and its points."""

    name: str
    style: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Reference:
    """A value that curves are held against: its name, the style of its colour, and the value."""

    name: str
    style: str
    y: float


@dataclass(frozen=True)
class Mark:
    """One dot: what it is, the style of its colour, its place, and half the length of its bar.

    Where there are columns, `x` is the index of one.
    """

    name: str
    style: str
    x: float
    y: float
    spread: float | None = None


@dataclass(frozen=True)
class Axis:
    """A linear map from values to pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers, about `count` of them, of which the ends enclose [low, high]."""
    if high <= low:
        high, low = low + 0.5 * max(abs(low), 1e-3), low - 0.5 * max(abs(low), 1e-3)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten, or only powers where these are many, around [low, high].

    Both ends are positive.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 6))
    within = (1, 2, 5) if last - first <= 2 else (1,)
    found = [
        m * 10.0**power for power in range(first - step, last + 2 * step, step) for m in within
    ]
    start = max(i for i, mark in enumerate(found) if mark <= low * (1 + 1e-9))
    end = min(i for i, mark in enumerate(found) if mark >= high * (1 - 1e-9))
    return found[start : end + 1] if end > start else found[start - 1 : start + 2]


def line_chart(lines: Sequence[Line], *, x_name: str, y_name: str, digits: int) -> str:
    """Draw curves; points that are close together are joined without dots."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    y_ticks = ticks(min(ys), max(ys), 4)
    across = Axis(0.0, max(*xs, 1.0), LEFT, WIDTH - RIGHT)
    up = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid_row(up(y), _number(y)) for y in y_ticks]
    for x in ticks(across.low, across.high, 5):
        if x <= across.high:
            at = across(x)
            anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
            parts.append(_text(at, HEIGHT - BOTTOM + 18, f"{x:,.0f}", anchor))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 2, x_name, "end"))
    for line in lines:
        dots = len(line.points) <= 25
        titles = [f"{x_name} {x:,.0f}: {y:.{digits}f}" for x, y in line.points]
        parts += _curve(line, across, up, titles, dots=dots)
    names = ", ".join(line.name for line in lines)
    return _svg(WIDTH, HEIGHT, f"{y_name} over {x_name}: {names}", parts)


def response_chart(
    lines: Sequence[Line],
    references: Sequence[Reference],
    *,
    x_name: str,
    y_name: str,
    digits: int = 2,
) -> str:
    """Draw curves over levels of any sign, and the values they are held against as dashed lines."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [r.y for r in references]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 8), ticks(min(ys), max(ys), 4)
    # The curves fill the width: what was not tried is not drawn.
    across = Axis(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8)
    up = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid_row(up(y), _number(y)) for y in y_ticks]
    for x in x_ticks:
        if across.low <= x <= across.high:
            parts.append(_text(across(x), HEIGHT - BOTTOM + 18, _number(x), "middle"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 2, x_name, "end"))
    for reference in references:
        y = f"{up(reference.y):.1f}"
        parts.append(
            f'<line class="reference series-{reference.style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
            f'y1="{y}" y2="{y}"><title>{escape(reference.name)}: {reference.y:.{digits}f}</title>'
            "</line>"
        )
    for line in lines:
        titles = [f"{x_name} {_number(x)}: {y:.{digits}f}" for x, y in line.points]
        parts += _curve(line, across, up, titles)
    names = ", ".join([line.name for line in lines] + [other.name for other in references])
    return _svg(WIDTH, HEIGHT, f"{y_name} over {x_name}: {names}", parts)


def dot_chart(rows: Mapping[str, Sequence[tuple[str, str, float]]], *, what: str) -> str:
    """Draw a row of dots (name, style, value) for each key, over an axis that shows zero."""
    values = [value for dots in rows.values() for _, _, value in dots]
    marks = ticks(min(0.0, *values), max(0.0, *values), 6)
    height = TOP + ROW * len(rows) + BOTTOM
    across = Axis(marks[0], marks[-1], NAMES, WIDTH - 16)
    parts = []
    for mark in marks:
        style = "zero" if mark == 0 else "grid"
        at = across(mark)
        parts.append(
            f'<line class="{style}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        )
        sign = "+" if mark > 0 else ""
        parts.append(_text(at, height - BOTTOM + 18, sign + _number(mark), "middle"))
    for index, (name, dots) in enumerate(rows.items()):
        y = TOP + ROW * (index + 0.5)
        short = name if len(name) <= 22 else "…" + name[-21:]
        parts.append(_text(NAMES - 14, y + 4, short, "end", "row-name"))
        ends = [across(value) for _, _, value in dots]
        parts.append(
            f'<line class="span" x1="{min(ends):.1f}" x2="{max(ends):.1f}" y1="{y}" y2="{y}"/>'
        )
        for label, style, value in dots:
            title = f"{name}, {label}: {value:+.2f}"
            parts.append(_dot(across(value), y, 5.5, f"dot series-{style}", title))
    return _svg(WIDTH, height, what, parts)


def scatter_chart(
    marks: Sequence[Mark],
    *,
    x_name: str,
    y_name: str,
    digits: int = 2,
    log: bool = False,
    columns: Sequence[str] = (),
    front: Sequence[tuple[float, float]] = (),
) -> str:
    """Draw dots over a number, its logarithm, or in named columns; `front` joins points by steps.

    The points of a front are sorted by x; between two of them the first one holds.
    """
    reach = [mark.spread or 0.0 for mark in marks]
    y_ticks = ticks(
        min(mark.y - more for mark, more in zip(marks, reach, strict=True)),
        max(mark.y + more for mark, more in zip(marks, reach, strict=True)),
        4,
    )
    up = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    across, x_ticks = _across([mark.x for mark in marks], log, columns)
    parts = [_grid_row(up(y), _number(y), "zero" if y == 0 else "grid") for y in y_ticks]
    for x, label in x_ticks:
        anchor = "end" if not columns and across(x) > WIDTH - RIGHT - 12 else "middle"
        parts.append(_text(across(x), HEIGHT - BOTTOM + 18, label, anchor))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 2, x_name, "end"))
    if front:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in _steps(front))
        parts.append(f'<polyline class="front" points="{path}"/>')
    for mark in marks:
        x, y = across(mark.x), up(mark.y)
        place = columns[int(mark.x)] if columns else f"{mark.x:.4g}"
        title = f"{mark.name}, {x_name} {place}: {y_name} {mark.y:.{digits}f}"
        if mark.spread is not None:
            title += f" ± {mark.spread:.{digits}f}"
            ends = f'y1="{up(mark.y - mark.spread):.1f}" y2="{up(mark.y + mark.spread):.1f}"'
            bar = f'<line class="bar series-{mark.style}" x1="{x:.1f}" x2="{x:.1f}" {ends}/>'
            parts.append(bar)
        parts.append(_dot(x, y, 5.5, f"dot series-{mark.style}", title))
    return _svg(WIDTH, HEIGHT, f"{y_name} over {x_name}", parts)


def _across(
    xs: Sequence[float], log: bool, columns: Sequence[str]
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """Return the map from values to pixels, and where its ticks are and what they say."""
    if columns:
        letters = max(2, int((WIDTH - RIGHT - LEFT) / len(columns) / 7))
        short = [name if len(name) <= letters else name[: letters - 1] + "…" for name in columns]
        axis = Axis(-0.5, len(columns) - 0.5, LEFT, WIDTH - RIGHT)
        return axis, [(float(index), name) for index, name in enumerate(short)]
    marks = log_ticks(min(xs), max(xs)) if log else ticks(min(xs), max(xs), 5)
    labels = [(mark, _number(mark)) for mark in marks]
    if not log:
        return Axis(marks[0], marks[-1], LEFT, WIDTH - RIGHT), labels
    powers = Axis(math.log10(marks[0]), math.log10(marks[-1]), LEFT, WIDTH - RIGHT)
    return lambda value: powers(math.log10(value)), labels


def _steps(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of a staircase: what a cost buys holds until the next point."""
    corners = [front[0]]
    for x, y in front[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _curve(
    line: Line, across: Axis, up: Axis, titles: Sequence[str], *, dots: bool = True
) -> list[str]:
    """Draw a curve and its points, each with its title; without dots they are seen when touched."""
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    parts = [f'<polyline class="curve series-{line.style}" points="{path}"/>']
    style = f"{'dot' if dots else 'dot unseen'} series-{line.style}"
    for (x, y), title in zip(line.points, titles, strict=True):
        place = across(x), up(y), 3.5 if dots else 6
        parts.append(_dot(*place, style, f"{line.name}, {title}"))
    return parts


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">\n'
        f"{inside}\n</svg>"
    )


def _grid_row(y: float, label: str, style: str = "grid") -> str:
    line = f'<line class="{style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 8, y + 4, label, "end")


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _dot(x: float, y: float, radius: float, style: str, title: str) -> str:
    return (
        f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _number(value: float) -> str:
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")
