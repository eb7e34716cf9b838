"""The part of a report on disturbed spikes: how a model's PSNR falls, and where spikes stop paying.

In: `Robustness`. Out: HTML: a chart for each kind of disturbance, with what the models are held
against as dashed lines, a table of the levels at which they fall under it, and every number.
"""

from __future__ import annotations

from dataclasses import dataclass

from vrtspike.evaluation.corruptions import Kind
from vrtspike.evaluation.curves import Level, Response, Robustness
from vrtspike.report.charts import HEIGHT, LEFT, WIDTH, Line, Reference, response_chart
from vrtspike.report.methods import method
from vrtspike.report.page import facts, legend
from vrtspike.report.tables import signed
from vrtspike.report.text import escape

COLUMNS, HEAD = 2, 28
"""Charts beside each other in the SVG file, and the height of a heading."""
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #85837a; } .title { font-size: 14px; fill: #16150f; }
.grid { stroke: #e4e3dd; } .zero { stroke: #85837a; }
.curve { fill: none; stroke-width: 2; } .reference { stroke-width: 1.5; stroke-dasharray: 6 4; }
.dot { stroke: #fff; stroke-width: 2; }
.series-fused { stroke: #2a78d6; } .series-baseline { stroke: #e0672d; }
.series-other { stroke: #1b9a6d; } .series-control { stroke: #b4b2a8; }
.dot.series-fused { fill: #2a78d6; stroke: #fff; }
.dot.series-baseline { fill: #e0672d; stroke: #fff; }
.dot.series-other { fill: #1b9a6d; stroke: #fff; }
"""
"""Colours of the SVG file: those of the light page."""


@dataclass(frozen=True)
class Look:
    """A kind of disturbance in words: its name, what is counted, and what it does."""

    name: str
    unit: str
    note: str


def robustness_section(robustness: Robustness) -> str:
    """Return the section on disturbed spikes."""
    charts = "".join(_chart(robustness, kind) for kind in charted(robustness))
    held = method(robustness.reference)
    entries = [(method(name).style, method(name).name) for name in robustness.models]
    dashed = [(f"{method(name).style} dashed", method(name).name) for name in robustness.references]
    return f"""
<section class="robustness"><h2>Robustness</h2>
<p class="note">PSNR (dB), mean over all frames, when the spikes that a model gets are disturbed.
Spikes pay as long as the curve is over the dashed line of {_named(held.name)}.</p>
{legend([*entries, *dashed])}
<div class="charts">{charts}
<div><h3>Falls under {escape(held.name)} at</h3><div class="scroll">{_falls(robustness)}</div></div>
</div>
<details><summary>All levels</summary><div class="scroll">{_levels(robustness)}</div></details>
<details><summary>How spikes were disturbed</summary>{facts(robustness.protocol)}</details>
</section>"""


def _named(name: str) -> str:
    """Return a method's name in the middle of a sentence, as HTML."""
    return f"<b>{escape(name)}</b>"


def look_of(kind: Kind) -> Look:
    """Return how a kind of disturbance is called."""
    match kind:
        case "threshold":
            return Look(
                "Threshold", "threshold", "a camera that needs more light for a spike; told so"
            )
        case "time":
            return Look("Time offset", "steps", "spikes later than the frame says, or earlier")
        case "space":
            return Look("Spatial shift", "pixels", "spikes too far down and right, on their grid")
        case "dropped":
            return Look("Dropped spikes", "probability", "each spike lost with a probability")
        case "noise":
            return Look("Noise", "probability", "a false spike with a probability, each step")
        case "silent":
            return Look("No spikes", "", "all spikes lost")


def charted(robustness: Robustness) -> list[Kind]:
    """Return the kinds of which there is a curve."""
    return [kind for kind in robustness.kinds if kind != "silent"]


def _chart(robustness: Robustness, kind: Kind) -> str:
    look = look_of(kind)
    chart, note = kind_chart(robustness, kind), look.note + _rates(robustness, kind)
    return f"<div><h3>{look.name} <small>{note}</small></h3>{chart}</div>"


def _rates(robustness: Robustness, kind: Kind) -> str:
    """Say what the levels of a threshold leave of the spikes; nothing of other kinds."""
    if kind != "threshold":
        return ""
    levels = robustness.of(kind)[0].levels
    each = ", ".join(f"{at.rate:.2g} at {_level(at.level)}" for at in levels)
    return f". Spikes a pixel and step: {each}"


def kind_chart(robustness: Robustness, kind: Kind) -> str:
    """Return the curves of one kind of disturbance as an `<svg>`."""
    lines = [
        Line(
            method(response.model).name,
            method(response.model).style,
            tuple((at.level, at.score.psnr) for at in response.levels),
        )
        for response in robustness.of(kind)
    ]
    references = [
        Reference(method(name).name, method(name).style, score.psnr)
        for name, score in robustness.references.items()
    ]
    return response_chart(lines, references, x_name=look_of(kind).unit, y_name="PSNR")


def robustness_svg(robustness: Robustness) -> str | None:
    """Return all curves as one SVG file that needs no page around it; None without curves."""
    kinds = charted(robustness)
    if not kinds:
        return None
    high, top = HEIGHT + HEAD, 2 * HEAD
    rows = -(-len(kinds) // COLUMNS)
    size = COLUMNS * (WIDTH + HEAD), top + rows * high + HEAD
    parts = [_key(robustness)]
    for number, kind in enumerate(kinds):
        x, y = number % COLUMNS * (WIDTH + HEAD), top + number // COLUMNS * high
        look = look_of(kind)
        title = f"{look.name}: {look.note}"
        parts.append(f'<text class="title" x="{x + LEFT}" y="{y + 18}">{escape(title)}</text>')
        place = f'x="{x}" y="{y + HEAD}" width="{WIDTH}" height="{HEIGHT}"'
        parts.append(kind_chart(robustness, kind).replace("<svg ", f"<svg {place} ", 1))
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect width="{size[0]}" height="{size[1]}" fill="#fff"/>\n{inside}\n</svg>\n'
    )


def _key(robustness: Robustness) -> str:
    """Return what the curves and the dashed lines of the SVG file are."""
    entries = [(name, "curve") for name in robustness.models]
    entries += [(name, "reference") for name in robustness.references]
    parts, x = [], LEFT
    for name, kind in entries:
        look = method(name)
        line = f'<line class="{kind} series-{look.style}" x1="{x}" x2="{x + 28}" y1="18" y2="18"/>'
        parts.append(f'{line}<text class="title" x="{x + 36}" y="23">{escape(look.name)}</text>')
        x += 72 + 8 * len(look.name)
    return "".join(parts)


def _falls(robustness: Robustness) -> str:
    """Return the table of the levels at which each model falls under the reference."""
    names = [escape(method(name).name) for name in robustness.models]
    heads = "".join(f'<th scope="col" class="words">{name}</th>' for name in names)
    rows = []
    for kind in robustness.kinds:
        found = robustness.of(kind)
        for side in robustness.falls_at(found[0]):
            name = side_name(kind, side)
            texts = [fall_text(robustness, response, side) for response in found]
            cells = "".join(f'<td class="words">{text}</td>' for text in texts)
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return f"""<table class="dense">
<thead><tr><th scope="col">Corruption</th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table>"""


def side_name(kind: Kind, side: str) -> str:
    """Name a kind of disturbance, and the side to which it grows where there are two."""
    return look_of(kind).name if side == "more" else f"{look_of(kind).name}, {side}"


def fall_text(robustness: Robustness, response: Response, side: str) -> str:
    """Say where a model falls under the reference, going to one side."""
    at = robustness.falls_at(response)[side]
    if response.kind == "silent":
        gap = response.levels[-1].score.psnr - robustness.references[robustness.reference].psnr
        return f"{'under it' if at is not None else 'not under it'}: {signed(gap)} dB"
    last = response.levels[0 if side == "earlier" else -1].level
    if at is None:
        return f"never within the range tried, to {level_text(response.kind, last)}"
    if at == response.undisturbed:
        return "under it undisturbed"
    return level_text(response.kind, at)


def level_text(kind: Kind, level: float) -> str:
    """Write a level with what is counted."""
    unit = look_of(kind).unit
    named = kind in ("threshold", "dropped", "noise")
    return f"{unit} {_level(level)}" if named else f"{_level(level)} {unit}"


def _levels(robustness: Robustness) -> str:
    """Return every number, by kind, level and model."""
    lpips = any(at.score.lpips is not None for r in robustness.responses for at in r.levels)
    heads = ["Corruption", "level", "spikes / pixel / step", "model", "PSNR", "SSIM"]
    rows = [
        f'<tr><th scope="row">{look_of(response.kind).name}</th>{_cells(response, at, lpips)}</tr>'
        for kind in robustness.kinds
        for response in robustness.of(kind)
        for at in response.levels
    ]
    names = "".join(f'<th scope="col">{head}</th>' for head in [*heads, *["LPIPS"] * lpips])
    return f"""<table class="dense">
<thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table>"""


def _cells(response: Response, at: Level, lpips: bool) -> str:
    score = at.score
    texts = [_level(at.level), f"{at.rate:.4f}", escape(method(response.model).name)]
    texts += [f"{score.psnr:.2f}", f"{score.ssim:.4f}"]
    if lpips:
        texts.append("" if score.lpips is None else f"{score.lpips:.4f}")
    return "".join(f"<td>{text}</td>" for text in texts)


def _level(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
