"""A report that anyone can open: one HTML file, no network, light and dark.

In: the results of an evaluation, what is known of the models' training runs, and the environment.
Out: report.html with the numbers, the gain by sequence, pictures to compare, what disturbed spikes
do, learning curves, and how all of it was made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vrtspike.evaluation.results import Results, write_text
from vrtspike.report.charts import Line, dot_chart, line_chart, thinned
from vrtspike.report.methods import (
    BASELINE,
    Method,
    guess_of,
    is_model,
    main_model,
    method,
    methods,
)
from vrtspike.report.page import fill, signed
from vrtspike.report.pictures import PanelPage
from vrtspike.report.robustness import robustness_facts
from vrtspike.report.tables import sequence_rows, summary_columns, what_vrt_adds
from vrtspike.runs.paths import CONFIG, METRICS
from vrtspike.storage.json_text import parse_json_mapping

CHART_ROWS = 40


@dataclass(frozen=True)
class RunRecord:
    """What a training run left: its settings as YAML, and the records of metrics.jsonl."""

    settings: str
    metrics: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, run: Path) -> RunRecord:
        """Read a run folder; a file that is missing gives nothing."""
        settings, metrics = run / CONFIG, run / METRICS
        records = []
        lines = metrics.read_text("utf-8", "replace").splitlines() if metrics.is_file() else []
        for line in lines:
            with suppress(ValueError):  # a run that was killed may leave half a line
                records.append(parse_json_mapping(line))
        text = settings.read_text("utf-8", "replace") if settings.is_file() else ""
        return cls(text, records)


def write_report(
    path: Path,
    results: Results,
    *,
    title: str,
    runs: Mapping[str, RunRecord],
    environment: Mapping[str, str],
) -> None:
    """Write the report of an evaluation; `runs` are the models' training runs by method."""
    looks = methods(results.methods)
    summary, notes = summary_columns(results)
    curves, shown = _curves(runs, looks)
    robustness = results.robustness
    page = fill(
        "evaluation.html.j2",
        title=title,
        results=results,
        looks=looks,
        tiles=_tiles(results),
        summary=summary,
        reach=_reach(results),
        added=what_vrt_adds(results),
        notes=notes,
        gains=_gains(results, looks),
        sequences=sequence_rows(results),
        panels=[PanelPage(number, panel, looks) for number, panel in enumerate(results.panels)],
        robustness=None if robustness is None else robustness_facts(robustness),
        curves=curves,
        curves_legend=[(looks[name].style, looks[name].name) for name in runs if name in shown],
        environment=environment,
        settings={
            f"Settings of {method(name).name}": run.settings
            for name, run in runs.items()
            if run.settings
        },
    )
    write_text(path, page)


def _tiles(results: Results) -> list[tuple[str, str, str]]:
    """Return the few numbers that most readers come for."""
    name = main_model(results.methods)
    if name is None:
        return []
    score, blurred = results.over_frames(name), results.over_frames("blurred")
    numbers = [(f"{score.psnr:.2f}", "dB", f"PSNR, {method(name).name}")]
    if BASELINE in results.methods and name != BASELINE:
        gain = score.psnr - results.over_frames(BASELINE).psnr
        numbers.append((signed(gain), "dB", "over the same model without spikes"))
    if guess_of(name) in results.methods:
        gain = score.psnr - results.over_frames(guess_of(name)).psnr
        numbers.append((signed(gain), "dB", "over its own first guess"))
    numbers.append((signed(score.psnr - blurred.psnr), "dB", "over the blurred input"))
    return [*numbers, (f"{score.ssim:.3f}", "", f"SSIM, blurred input {blurred.ssim:.3f}")]


def _reach(results: Results) -> dict[str, float]:
    """Return where each method lies between the lowest PSNR and the highest, in percent."""
    psnr = {name: results.over_frames(name).psnr for name in results.methods}
    lowest, highest = min(psnr.values()), max(psnr.values())
    span = max(highest - lowest, 1e-6)
    return {name: round(100 * (value - lowest) / span, 1) for name, value in psnr.items()}


def _gains(results: Results, looks: Mapping[str, Method]) -> dict[str, Any]:
    """Return each sequence's gain over its blurred input as a chart of dots, and its legend."""
    models = [name for name in looks if is_model(name)]
    shown = models or [name for name in looks if name == "sdm"]
    gains = {}
    for sequence in results.sequences[:CHART_ROWS]:
        blurred = results.over_frames("blurred", sequence).psnr
        gains[sequence] = [
            (
                looks[name].name,
                looks[name].style,
                results.over_frames(name, sequence).psnr - blurred,
            )
            for name in shown
        ]
    what = "PSNR gain over the blurred input, by sequence"
    return {
        "chart": dot_chart(gains, what=what) if shown else "",
        "legend": [(looks[name].style, looks[name].name) for name in shown],
        "more": len(results.sequences) - len(gains),
    }


def _curves(
    runs: Mapping[str, RunRecord], looks: Mapping[str, Method]
) -> tuple[list[tuple[str, str, Markup]], set[str]]:
    """Return learning curves (heading, note, chart), and the runs that recorded any."""
    charts, shown = [], set()
    for kind, key, heading, digits in (
        ("val", "psnr", "Validation PSNR (dB)", 2),
        ("train", "loss", "Training loss", 4),
    ):
        lines = []
        for name, run in runs.items():
            found = [
                (float(record["step"]), float(record[key]))
                for record in run.metrics
                if record.get("kind") == kind and _numbers(record.get("step"), record.get(key))
            ]
            if found:
                shown.add(name)
                lines.append(Line(looks[name].name, looks[name].style, thinned(found)))
        if lines:
            chart = line_chart(lines, x_name="step", y_name=heading, digits=digits)
            charts.append((heading, "", chart))
    return charts, shown


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)
