"""The part of a report on disturbed spikes: how a model's PSNR falls, and where spikes stop paying.

In: `Robustness`. Out: what its section shows: a chart for each kind of disturbance, with what the
models are held against as dashed lines, the levels at which they fall under it, and every number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vrtspike.evaluation.corruptions import Kind
from vrtspike.evaluation.curves import Response, Robustness
from vrtspike.report.charts import Line, Reference, line_chart
from vrtspike.report.methods import method
from vrtspike.report.page import signed


@dataclass(frozen=True)
class Look:
    """A kind of disturbance in words: its name, what is counted, and what it does."""

    name: str
    unit: str
    note: str


def robustness_facts(robustness: Robustness) -> dict[str, Any]:
    """Return what the section on disturbed spikes shows."""
    models, held = robustness.models, method(robustness.reference).name
    lpips = any(at.score.lpips is not None for r in robustness.responses for at in r.levels)
    heads = ["Corruption", "level", "spikes / pixel / step", "model", "PSNR", "SSIM"]
    return {
        "held": held,
        "legend": [
            *((method(name).style, method(name).name) for name in models),
            *(
                (f"{method(name).style} dashed", method(name).name)
                for name in robustness.references
            ),
        ],
        "charts": [
            (look_of(kind).name, look_of(kind).note + _rates(robustness, kind), chart)
            for kind in robustness.kinds
            if kind != "silent"
            for chart in [_chart(robustness, kind)]
        ],
        "falls_heads": ["Corruption", *(method(name).name for name in models)],
        "falls": [
            [side_name(kind, side), *(fall_text(robustness, r, side) for r in robustness.of(kind))]
            for kind in robustness.kinds
            for side in robustness.falls_at(robustness.of(kind)[0])
        ],
        "level_heads": heads + ["LPIPS"] * lpips,
        "levels": _levels(robustness, lpips),
        "protocol": robustness.protocol,
    }


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


def _rates(robustness: Robustness, kind: Kind) -> str:
    """Say what the levels of a threshold leave of the spikes; nothing of other kinds."""
    if kind != "threshold":
        return ""
    levels = robustness.of(kind)[0].levels
    each = ", ".join(f"{at.rate:.2g} at {_level(at.level)}" for at in levels)
    return f". Spikes a pixel and step: {each}"


def _chart(robustness: Robustness, kind: Kind) -> Markup:
    """Return the curves of one kind of disturbance."""
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
    return line_chart(lines, references, x_name=look_of(kind).unit, y_name="PSNR", levels=True)


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


def _levels(robustness: Robustness, lpips: bool) -> list[list[str]]:
    """Return every number, by kind, model and level."""
    rows = []
    for kind in robustness.kinds:
        for response in robustness.of(kind):
            for at in response.levels:
                texts = [look_of(kind).name, _level(at.level), f"{at.rate:.4f}"]
                texts += [method(response.model).name]
                texts += [f"{at.score.psnr:.2f}", f"{at.score.ssim:.4f}"]
                known = at.score.lpips is not None
                rows.append(texts + [f"{at.score.lpips:.4f}" if known else ""] * lpips)
    return rows


def _level(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
