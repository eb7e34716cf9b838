"""The charts of a sweep's report.

In: a summary. Out: sections; none where there is nothing to draw as yet. A dot is a trial of the
search (or its mean over seeds) in the colour of `style_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from vrtspike.config.sweep import Choice, Distribution, Grid, LogUniform
from vrtspike.report.charts import Line, Mark, dot_chart, line_chart, scatter_chart, thinned
from vrtspike.training.budget import budget_text
from vrtspike.tuning.space import said, sweep_of
from vrtspike.tuning.summary import Summary, front, mean_of
from vrtspike.tuning.tables import first_of, ranked, ratio, setting_text
from vrtspike.tuning.trial_results import TrialResult

METRICS = {
    "psnr": "PSNR of the validation split",
    "ssim": "SSIM of the validation split",
    "step_s": "seconds of a step",
    "memory_gb": "most memory of a worker",
}
LEGEND = {
    "fused": "best combination",
    "baseline": "without spikes",
    "trial": "other trials",
    "stopped": "cut short or failed",
}
COST_LEGEND = {"fused": "best combination", "trial": "equal losses", "stopped": "losses differ"}
SHOWN_COSTS = (("step_s", "step time", "time"), ("memory_gb", "memory", "memory"))


class Section(NamedTuple):
    """A part of the page: heading, legend, charts (heading, note, `<svg>`), layout, and a note."""

    heading: str
    legend: list[tuple[str, str]]
    charts: list[tuple[str, str, Markup]]
    layout: str
    note: str


def gain_against_cost(summary: Summary) -> Section | None:
    """Return what each trial gains against what it costs, with the Pareto front."""
    repeated = {final.rows[0].trial.number: final for final in summary.finals}
    charts: list[tuple[str, str, Markup]] = []
    shown: set[str] = set()
    for cost, what in (("step_s", "seconds of a step"), ("memory_gb", "GB of a worker")):
        marks = []
        for row in summary.searched:
            final = repeated.get(row.trial.number)
            rows = (row,) if final is None else final.rows
            gain = summary.gain(*rows)
            x = mean_of(rows, cost)
            if row.state == "done" and gain is not None and x is not None:
                name = _named(row)
                marks.append(Mark(name, style_of(summary, row), x, gain.value, gain.spread))
        plain = mean_of([row for row in summary.baselines if not _alike(row)], cost)
        if not marks or plain is None:
            continue
        marks.append(Mark("baseline", "baseline", plain, 0.0))
        shown |= {mark.style for mark in marks}
        points = {mark.name: (mark.x, mark.y) for mark in marks}
        path = sorted(points[name] for name in front(points))
        chart = scatter_chart(marks, x_name=what, y_name="gain (dB)", front=path)
        charts.append((f"Gain over the baseline (dB), {what}", "", chart))
    note = (
        "Dashed: the Pareto front, which nothing beats in gain and cost at once. Bars: the spread. "
        "Of combinations with several seeds their mean."
    )
    legend = _legend(LEGEND, shown)
    return Section("Gain against cost", legend, charts, "split", note) if charts else None


def _alike(row: TrialResult) -> bool:
    """Tell whether a baseline was trained like a finalist, and not like the sweep's own."""
    return len(row.trial.settings) > 1


def learning_curves(summary: Summary) -> Section | None:
    """Return the validation PSNR of all trials over their steps, or, where they have equal time,
    over shares of it."""
    order, train = ("stopped", "trial", "baseline", "fused"), summary.config.train
    lines = []
    for row in summary.rows:
        found = [
            (
                float(record["step"]) if train.minutes is None else 100 * record["share"],
                float(record["psnr"]),
            )
            for record in summary.curves.get(row.trial.name, ())
            if record["kind"] == "val" and None not in (record["psnr"], record["share"])
        ]
        if found:
            lines.append(Line(_named(row), style_of(summary, row), thinned(found)))
    if not lines:
        return None
    # What matters most is drawn last, over the others.
    lines.sort(key=lambda line: order.index(line.style))
    x_name = "step" if train.minutes is None else f"% of {budget_text(train)}"
    chart = line_chart(lines, x_name=x_name, y_name="validation PSNR (dB)", digits=2)
    legend = _legend(LEGEND, [line.style for line in lines])
    charts = [("Validation PSNR (dB)", "", chart)]
    return Section("Learning curves", legend, charts, "single", "")


def effects(summary: Summary) -> Section | None:
    """Return the trials over the values of each setting."""
    values, what, digits = _effect(summary)
    charts: list[tuple[str, str, Markup]] = []
    shown: set[str] = set()
    for key, how in sweep_of(summary.config).space.items():
        rows = [
            row
            for row in summary.searched
            if row.trial.name in values and key in row.trial.settings
        ]
        if rows:
            points = [
                (
                    _named(row),
                    style_of(summary, row),
                    row.trial.settings[key],
                    values[row.trial.name],
                )
                for row in rows
            ]
            shown |= {style for _, style, _, _ in points}
            chart = _over_setting(key, how, points, what, digits)
            charts.append((key, "", chart))
    note = "One dot a trial of the search; its other settings differ too."
    if not summary.cost:
        note += " Of one that was cut short the validation at its last step."
    legend = _legend(COST_LEGEND if summary.cost else LEGEND, shown)
    heading = f"Effect of each setting: {what}"
    return Section(heading, legend, charts, "charts", note) if charts else None


def _effect(summary: Summary) -> tuple[dict[str, float], str, int]:
    """Return what effects are shown in, by trial: gains, or else validations, or costs."""
    metric = sweep_of(summary.config).metric
    if summary.cost:
        done = [row for row in summary.searched if row.state == "done"]
        return _known({row.trial.name: row.value(metric) for row in done}), METRICS[metric], 4
    gains: dict[str, float | None] = {}
    for row in summary.searched:
        gain = summary.gain(row)
        gains[row.trial.name] = summary.val_gain(row) if gain is None else gain.value
    if known := _known(gains):
        return known, "gain over the baseline (dB)", 2
    found = {row.trial.name: row.val_psnr for row in summary.searched}
    return _known(found), "validation PSNR (dB)", 2


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _over_setting(
    key: str,
    how: Distribution,
    points: Sequence[tuple[str, str, object, float]],
    what: str,
    digits: int,
) -> Markup:
    """Draw dots (name, style, value of the setting, y) over a range, or in columns of values."""
    columns: list[str] = []
    if isinstance(how, Grid | Choice):
        offered = how.grid if isinstance(how, Grid) else how.choice
        columns = list(dict.fromkeys(setting_text(value) for value in offered))
    marks = [
        Mark(name, style, columns.index(setting_text(x)) if columns else float(str(x)), y)
        for name, style, x, y in points
    ]
    log = isinstance(how, LogUniform)
    return scatter_chart(marks, x_name=key, y_name=what, digits=digits, log=log, columns=columns)


def costs(summary: Summary) -> Section | None:
    """Return step time and memory of each trial, against the first and against each other."""
    done = {
        row.trial.name: row
        for row in ranked(summary)
        if row.trial.arm == "search" and row.state == "done"
    }
    places = {
        name: (row.memory_gb, row.step_s)
        for name, row in done.items()
        if row.memory_gb is not None and row.step_s is not None
    }
    if not places:
        return None
    changes = {
        name: [
            (f"{said(done[name].trial.settings)}, {label}", style, 100 * (share - 1))
            for figure, label, style in SHOWN_COSTS
            if (share := ratio([done[name]], [first_of(summary)], figure)) is not None
        ]
        for name in places
    }
    against = dot_chart(
        {name: dots for name, dots in changes.items() if dots},
        what="Change against the first trial, %",
    )
    marks = [
        Mark(_named(done[name]), style_of(summary, done[name]), memory, step_s)
        for name, (memory, step_s) in places.items()
    ]
    equal = {n: (x, -y) for n, (x, y) in places.items() if summary.equal(done[n])}
    plane = scatter_chart(
        marks,
        x_name="GB of a worker",
        y_name="seconds of a step",
        digits=3,
        front=sorted(places[name] for name in front(equal)),
    )
    labels = COST_LEGEND | {style: label for _, label, style in SHOWN_COSTS}
    shown = [mark.style for mark in marks]
    charts = [
        ("Change against the first trial (%)", "", against),
        ("Seconds of a step, GB of a worker", "", plane),
    ]
    note = "Dashed: the Pareto front of the trials with equal losses."
    return Section("Costs", _legend(labels, [*shown, "time", "memory"]), charts, "split", note)


def style_of(summary: Summary, row: TrialResult) -> str:
    """Return the style of a trial's marks."""
    best = summary.best
    if row.trial.arm == "baseline":
        return "baseline"
    if best is not None and row.trial.number == best.rows[0].trial.number:
        return "fused"
    pale = not summary.equal(row) if summary.cost else row.state != "done"
    return "stopped" if pale else "trial"


def _named(row: TrialResult) -> str:
    """Return how a trial's marks call it."""
    return f"{row.trial.name} ({said(row.trial.settings)})"


def _legend(entries: Mapping[str, str], shown: Collection[str]) -> list[tuple[str, str]]:
    """Return what the styles that are shown stand for."""
    return [(style, text) for style, text in entries.items() if style in shown]
