"""Charts as SVG: curves, dots by row, dots over a number or by kind, bars.

In: numbers and names. Out: an `<svg>` whose colours are classes (`series-<style>`) that the page
defines for light and dark. Every mark says its value in a `<title>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from vrtspike.report.page import fill

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
ROW, NAMES, LETTERS = 30, 168, 22
CURVE_POINTS = 150
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve: its name, the style of its colour, and its points."""

    name: str
    style: str
    points: tuple[Point, ...]


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


@dataclass
class Drawing:
    """The elements of an `<svg>`: their tag, attributes, and text or title."""

    label: str
    height: float = HEIGHT
    parts: list[tuple[str, dict[str, str], str]] = field(default_factory=list)

    def add(self, tag: str, style: str, words: str = "", **attributes: float | str) -> None:
        """Add an element; numbers are pixels."""
        written = {
            name.replace("_", "-"): value if isinstance(value, str) else f"{value:.1f}"
            for name, value in attributes.items()
        }
        self.parts.append((tag, {"class": style, **written}, words))

    def text(
        self, x: float, y: float, words: str, anchor: str = "middle", style: str = "tick"
    ) -> None:
        """Write a text."""
        self.add("text", style, words, x=x, y=y, text_anchor=anchor)

    def rows(self, up: Axis, marks: Sequence[float], *, percent: bool = False) -> None:
        """Draw a line and a number at each mark of the vertical axis."""
        for mark in marks:
            style, y = "zero" if mark == 0 and marks[0] < 0 else "grid", up(mark)
            self.add("line", style, x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
            words = f"{number(100 * mark)}%" if percent else number(mark)
            self.text(LEFT - 8, y + 4, words, "end")

    def columns(self, across: Callable[[float], float], marks: Mapping[float, str]) -> None:
        """Write the marks of the horizontal axis."""
        for mark, words in marks.items():
            x = across(mark)
            self.text(
                x, self.height - BOTTOM + 18, words, "end" if x > WIDTH - RIGHT - 12 else "middle"
            )

    def path(self, style: str, points: Sequence[Point]) -> None:
        """Draw a line through points."""
        self.add("polyline", style, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))

    def dot(self, at: Point, style: str, title: str, radius: float = 5.5) -> None:
        """Draw a dot."""
        self.add("circle", style, title, cx=at[0], cy=at[1], r=radius)

    def svg(self) -> Markup:
        """Return the `<svg>`."""
        return fill("chart.svg.j2", drawing=self, width=WIDTH)


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


def line_chart(
    lines: Sequence[Line],
    references: Sequence[Reference] = (),
    *,
    x_name: str,
    y_name: str,
    digits: int = 2,
    levels: bool = False,
) -> Markup:
    """Draw curves, and the values that they are held against as dashed lines.

    The horizontal axis counts from 0; that of `levels` of any sign goes from the least tried to the
    greatest, and every level has its dot.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [r.y for r in references]
    y_ticks = ticks(min(ys), max(ys), 4)
    up = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    across = Axis(0.0, max(*xs, 1.0), LEFT, WIDTH - RIGHT)
    if levels:
        across = Axis(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8)
    written = number if levels else "{:,.0f}".format
    names = ", ".join([line.name for line in lines] + [held.name for held in references])
    drawing = Drawing(f"{y_name} over {x_name}: {names}")
    drawing.rows(up, y_ticks)
    marks = ticks(across.low, across.high, 8 if levels else 5)
    inside = [mark for mark in marks if across.low <= mark <= across.high]
    drawing.columns(across, {mark: written(mark) for mark in inside})
    drawing.text(WIDTH - RIGHT, HEIGHT - 2, x_name, "end")
    for held in references:
        y, title = up(held.y), f"{held.name}: {held.y:.{digits}f}"
        style = f"reference series-{held.style}"
        drawing.add("line", style, title, x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
    for line in lines:
        at = [(across(x), up(y)) for x, y in line.points]
        drawing.path(f"curve series-{line.style}", at)
        # Dots that are close together are seen when they are touched.
        dots = levels or len(at) <= 25
        style = f"{'dot' if dots else 'dot unseen'} series-{line.style}"
        for place, (x, y) in zip(at, line.points, strict=True):
            title = f"{line.name}, {x_name} {written(x)}: {y:.{digits}f}"
            drawing.dot(place, style, title, 3.5 if dots else 6)
    return drawing.svg()


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """Average neighbouring points until at most `CURVE_POINTS` are left."""
    width = -(-len(points) // CURVE_POINTS)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )


def dot_chart(rows: Mapping[str, Sequence[tuple[str, str, float]]], *, what: str) -> Markup:
    """Draw a row of dots (name, style, value) for each key, over an axis that shows zero."""
    values = [value for dots in rows.values() for _, _, value in dots]
    marks = ticks(min(0.0, *values), max(0.0, *values), 6)
    drawing = Drawing(what, TOP + ROW * len(rows) + BOTTOM)
    across = Axis(marks[0], marks[-1], NAMES, WIDTH - 16)
    bottom = drawing.height - BOTTOM
    for mark in marks:
        x = across(mark)
        drawing.add("line", "grid" if mark else "zero", x1=x, x2=x, y1=TOP, y2=bottom)
        drawing.text(x, bottom + 18, ("+" if mark > 0 else "") + number(mark))
    for index, (name, dots) in enumerate(rows.items()):
        y = TOP + ROW * (index + 0.5)
        short = name if len(name) <= LETTERS else "…" + name[1 - LETTERS :]
        drawing.text(NAMES - 14, y + 4, short, "end", "row-name")
        ends = [across(value) for _, _, value in dots]
        drawing.add("line", "span", x1=min(ends), x2=max(ends), y1=y, y2=y)
        for label, style, value in dots:
            title = f"{name}, {label}: {value:+.2f}"
            drawing.dot((across(value), y), f"dot series-{style}", title)
    return drawing.svg()


def scatter_chart(
    marks: Sequence[Mark],
    *,
    x_name: str,
    y_name: str,
    digits: int = 2,
    log: bool = False,
    columns: Sequence[str] = (),
    front: Sequence[Point] = (),
) -> Markup:
    """Draw dots over a number, its logarithm, or in named columns; `front` joins points by steps.

    The points of a front are sorted by x; between two of them the first one holds.
    """
    ends = [mark.y + sign * (mark.spread or 0.0) for mark in marks for sign in (-1, 1)]
    y_ticks = ticks(min(ends), max(ends), 4)
    up = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    across, x_ticks = _across([mark.x for mark in marks], log, columns)
    drawing = Drawing(f"{y_name} over {x_name}")
    drawing.rows(up, y_ticks)
    drawing.columns(across, x_ticks)
    drawing.text(WIDTH - RIGHT, HEIGHT - 2, x_name, "end")
    if front:
        drawing.path("front", [(across(x), up(y)) for x, y in _steps(front)])
    for mark in marks:
        x = across(mark.x)
        place = columns[int(mark.x)] if columns else f"{mark.x:.4g}"
        title = f"{mark.name}, {x_name} {place}: {y_name} {mark.y:.{digits}f}"
        if mark.spread is not None:
            title += f" ± {mark.spread:.{digits}f}"
            low, high = up(mark.y - mark.spread), up(mark.y + mark.spread)
            drawing.add("line", f"bar series-{mark.style}", x1=x, x2=x, y1=low, y2=high)
        drawing.dot((x, up(mark.y)), f"dot series-{mark.style}", title)
    return drawing.svg()


def bar_chart(shares: Sequence[float], names: Sequence[str], *, x_name: str) -> Markup:
    """Draw shares of a whole as bars."""
    y_ticks = ticks(0.0, max(shares), 4)
    up = Axis(0.0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    across = Axis(0.0, float(len(shares)), LEFT, WIDTH - RIGHT)
    drawing = Drawing(f"shares over {x_name}")
    drawing.rows(up, y_ticks, percent=True)
    every = max(1, len(shares) // 12)
    drawing.columns(across, {bar + 0.5: names[bar] for bar in range(0, len(shares), every)})
    drawing.text(WIDTH - RIGHT, HEIGHT - 2, x_name, "end")
    for bar, share in enumerate(shares):
        size = {"width": across(1) - across(0), "height": up(0) - up(share)}
        drawing.add(
            "rect", "column", f"{names[bar]}: {share:.2%}", x=across(bar), y=up(share), **size
        )
    return drawing.svg()


def svg_file(charts: Mapping[str, Markup], texts: Sequence[tuple[str, str]] = ()) -> str:
    """Return charts by their headings as one SVG file that needs no page around it.

    `texts` (style of a colour or "", text) stand above them.
    """
    size = {"width": WIDTH, "height": HEIGHT, "columns": max(1, min(len(charts), 2))}
    return fill("file.svg.j2", charts=charts, texts=texts, **size)


def number(value: float) -> str:
    """Write a number as an axis shows it."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def _across(
    xs: Sequence[float], log: bool, columns: Sequence[str]
) -> tuple[Callable[[float], float], dict[float, str]]:
    """Return the map from values to pixels, and where its ticks are and what they say."""
    if columns:
        letters = max(2, int((WIDTH - RIGHT - LEFT) / len(columns) / 7))
        short = [name if len(name) <= letters else name[: letters - 1] + "…" for name in columns]
        axis = Axis(-0.5, len(columns) - 0.5, LEFT, WIDTH - RIGHT)
        return axis, {float(index): name for index, name in enumerate(short)}
    marks = log_ticks(min(xs), max(xs)) if log else ticks(min(xs), max(xs), 5)
    labels = {mark: number(mark) for mark in marks}
    if not log:
        return Axis(marks[0], marks[-1], LEFT, WIDTH - RIGHT), labels
    powers = Axis(math.log10(marks[0]), math.log10(marks[-1]), LEFT, WIDTH - RIGHT)
    return lambda value: powers(math.log10(value)), labels


def _steps(front: Sequence[Point]) -> list[Point]:
    """Return the corners of a staircase: what a cost buys holds until the next point."""
    corners = [front[0]]
    for x, y in front[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners
