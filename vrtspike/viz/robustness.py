"""The part of a report on disturbed spikes: how a model's PSNR falls, and where spikes stop paying.

In: `Robustness`. Out: HTML: a chart for each kind of disturbance, with what the models are held
against as dashed lines, a table of the levels at which they fall under it, and every number.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from vrtspike.inference.disturb import Kind
from vrtspike.inference.response import Level, Response, Robustness
from vrtspike.viz.charts import Line, Reference, response_chart
from vrtspike.viz.methods import method
from vrtspike.viz.page import facts, legend
from vrtspike.viz.tables import signed


@dataclass(frozen=True)
class _Look:
    """A kind of disturbance in words: its name, what is counted, and what it does."""

    name: str
    unit: str
    note: str


def robustness_section(robustness: Robustness) -> str:
    """Return the section on disturbed spikes."""
    charts = "".join(_chart(robustness, kind) for kind in robustness.kinds if kind != "silent")
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


def _look(kind: Kind) -> _Look:
    match kind:
        case "threshold":
            return _Look(
                "Threshold", "threshold", "a camera that needs more light for a spike; told so"
            )
        case "time":
            return _Look("Time offset", "steps", "spikes later than the frame says, or earlier")
        case "space":
            return _Look("Spatial shift", "pixels", "spikes too far down and right, on their grid")
        case "dropped":
            return _Look("Dropped spikes", "probability", "each spike lost with a probability")
        case "noise":
            return _Look("Noise", "probability", "a false spike with a probability, each step")
        case "silent":
            return _Look("No spikes", "", "all spikes lost")


def _chart(robustness: Robustness, kind: Kind) -> str:
    look = _look(kind)
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
    chart = response_chart(lines, references, x_name=look.unit, y_name="PSNR")
    return f"<div><h3>{look.name} <small>{look.note}</small></h3>{chart}</div>"


def _falls(robustness: Robustness) -> str:
    """Return the table of the levels at which each model falls under the reference."""
    names = [escape(method(name).name) for name in robustness.models]
    heads = "".join(f'<th scope="col" class="words">{name}</th>' for name in names)
    rows = []
    for kind in robustness.kinds:
        found = robustness.of(kind)
        for side in robustness.falls_at(found[0]):
            name = f"{_look(kind).name}, {side}" if side != "more" else _look(kind).name
            texts = [fall_text(robustness, response, side) for response in found]
            cells = "".join(f'<td class="words">{text}</td>' for text in texts)
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return f"""<table class="dense">
<thead><tr><th scope="col">Disturbance</th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table>"""


def fall_text(robustness: Robustness, response: Response, side: str) -> str:
    """Say where a model falls under the reference, going to one side."""
    at = robustness.falls_at(response)[side]
    if response.kind == "silent":
        gap = response.levels[-1].score.psnr - robustness.references[robustness.reference].psnr
        return f"{'under it' if at is not None else 'not under it'}: {signed(gap)} dB"
    last = response.levels[0 if side == "earlier" else -1].level
    if at is None:
        return f"never within the range tried, to {_counted(response.kind, last)}"
    if at == response.undisturbed:
        return "under it undisturbed"
    return _counted(response.kind, at)


def _counted(kind: Kind, level: float) -> str:
    """Write a level with what is counted."""
    unit = _look(kind).unit
    named = kind in ("threshold", "dropped", "noise")
    return f"{unit} {_level(level)}" if named else f"{_level(level)} {unit}"


def _levels(robustness: Robustness) -> str:
    """Return every number, by kind, level and model."""
    lpips = any(at.score.lpips is not None for r in robustness.responses for at in r.levels)
    heads = ["Disturbance", "level", "spikes / pixel / step", "model", "PSNR", "SSIM"]
    rows = [
        f'<tr><th scope="row">{_look(response.kind).name}</th>{_cells(response, at, lpips)}</tr>'
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
