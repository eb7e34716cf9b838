"""A report that anyone can open: one HTML file, no network, light and dark.

In: the results of an evaluation, what is known of the models' training runs, and the environment.
Out: report.html with the numbers, the gain by sequence, pictures to compare, what disturbed spikes
do, learning curves, and how all of it was made. The page's frame is `vrtspike.report.page`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrtspike.evaluation.results import Results, write_text
from vrtspike.report.charts import Line, dot_chart, line_chart
from vrtspike.report.methods import BASELINE, guess_of, main_model, method
from vrtspike.report.page import facts, header, legend, page, tiles
from vrtspike.report.pictures import PanelPage
from vrtspike.report.robustness import robustness_section
from vrtspike.report.tables import sequence_table, signed, summary_table
from vrtspike.report.text import escape
from vrtspike.runs.paths import CONFIG, METRICS
from vrtspike.storage.json_text import parse_json_mapping

CURVE_POINTS = 150
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
    panels = [PanelPage(number, panel) for number, panel in enumerate(results.panels)]
    images = "\n".join(panel.css() for panel in panels)
    sections = [
        _header(results, title),
        _tiles(results),
        summary_table(results),
        _by_sequence(results),
        _pictures(panels),
        "" if results.robustness is None else robustness_section(results.robustness),
        _curves(runs),
        _details(results, runs, environment),
    ]
    write_text(path, page(f"{title}: vrtspike report", "".join(sections), images))


def _header(results: Results, title: str) -> str:
    protocol = results.protocol
    about = [
        counted(len(results.sequences), "sequence"),
        counted(len(results.frames) // len(results.methods), "frame"),
        f"split <b>{escape(results.split)}</b>",
    ]
    if "frame_size" in protocol:
        height, width = protocol["frame_size"]
        about.append(f"frames {width} × {height}")
        if protocol["spike_size"] is not None:
            rows, columns = protocol["spike_size"]
            about.append(f"spikes {columns} × {rows} at {protocol['spike_rate_hz']:,g} Hz")
    return header("vrtspike evaluation", title, " · ".join(about))


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def _tiles(results: Results) -> str:
    """Return the few numbers that most readers come for."""
    name = main_model(results.methods)
    if name is None:
        return ""
    score, blurred = results.over_frames(name), results.over_frames("blurred")
    numbers = [(f"{score.psnr:.2f}", "dB", f"PSNR, {method(name).name}")]
    if BASELINE in results.methods and name != BASELINE:
        gain = score.psnr - results.over_frames(BASELINE).psnr
        numbers.append((signed(gain), "dB", "over the same model without spikes"))
    if guess_of(name) in results.methods:
        gain = score.psnr - results.over_frames(guess_of(name)).psnr
        numbers.append((signed(gain), "dB", "over its own first guess"))
    numbers.append((signed(score.psnr - blurred.psnr), "dB", "over the blurred input"))
    numbers.append((f"{score.ssim:.3f}", "", f"SSIM, blurred input {blurred.ssim:.3f}"))
    return tiles(numbers)


def _by_sequence(results: Results) -> str:
    """Return each sequence's gain over its blurred input, as dots and as a table."""
    models = [name for name in results.methods if method(name).style != "control"]
    shown = models or [name for name in results.methods if name == "sdm"]
    scores = {
        sequence: {name: results.over_frames(name, sequence) for name in results.methods}
        for sequence in results.sequences
    }
    gains = {
        sequence: [
            (method(name).name, method(name).style, found[name].psnr - found["blurred"].psnr)
            for name in shown
        ]
        for sequence, found in list(scores.items())[:CHART_ROWS]
    }
    what = "PSNR gain over the blurred input, by sequence"
    chart = dot_chart(gains, what=what) if shown else ""
    more = len(scores) - len(gains)
    note = f'<p class="note">{more} more sequences are in the table.</p>' if more > 0 else ""
    return f"""
<section class="split">
<div><h2>Gain over the blurred input (dB)</h2>{_legend(shown)}{chart}{note}</div>
<div><h2>PSNR by sequence</h2>{sequence_table(scores)}</div></section>"""


def _legend(names: Sequence[str]) -> str:
    return legend([(method(name).style, method(name).name) for name in names])


def _pictures(panels: Sequence[PanelPage]) -> str:
    if not panels:
        return ""
    return f"""
<section><h2>Pictures</h2>
<p class="note">Of each sequence the frame whose blurred input has the lowest PSNR; close up, the
places where blurred and sharp differ most. Neither choice looks at a model.</p>
{"".join(panel.html() for panel in panels)}</section>"""


def _curves(runs: Mapping[str, RunRecord]) -> str:
    """Return learning curves, where runs recorded any."""
    charts = []
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
                look = method(name)
                lines.append(Line(look.name, look.style, thinned(found)))
        if lines:
            chart = line_chart(lines, x_name="step", y_name=heading, digits=digits)
            charts.append(f"<div><h3>{heading}</h3>{chart}</div>")
    if not charts:
        return ""
    return f"""
<section><h2>Learning curves</h2>{_legend(list(runs))}
<div class="split">{"".join(charts)}</div></section>"""


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Average neighbouring points until at most `CURVE_POINTS` are left."""
    width = -(-len(points) // CURVE_POINTS)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )


def _details(
    results: Results, runs: Mapping[str, RunRecord], environment: Mapping[str, str]
) -> str:
    """Return how the numbers were made: protocol, environment, settings."""
    settings = "".join(
        f"<details><summary>Settings of {escape(method(name).name)}</summary>"
        f"<pre>{escape(run.settings)}</pre></details>"
        for name, run in runs.items()
        if run.settings
    )
    return f"""
<section><h2>How this was made</h2><div class="split">
<div><h3>Protocol</h3>{facts(results.protocol)}</div>
<div><h3>Environment</h3>{facts(environment)}{settings}</div></div></section>"""
