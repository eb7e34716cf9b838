"""The report of a sweep: one HTML file, no network, light and dark.

In: a summary of the sweep as far as it is, pictures of the best and the baseline (`baseline` and
`fused`) when there are any, and the environment. Out: report.html with what spikes buy and what
they cost, every trial, charts, and how all of it was made. It is written again whenever a trial
ends, so any part may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vrtspike.config.loader import dump_config
from vrtspike.evaluation.results import Panel
from vrtspike.report.page import facts, header, page, tiles
from vrtspike.report.pictures import PanelPage
from vrtspike.report.tables import signed
from vrtspike.report.text import escape
from vrtspike.storage.folder import Folder
from vrtspike.training.budget import budget_text
from vrtspike.tuning.charts import (
    METRICS,
    costs,
    effects,
    gain_against_cost,
    learning_curves,
    style_of,
)
from vrtspike.tuning.space import said, sweep_of
from vrtspike.tuning.summary import Final, Summary
from vrtspike.tuning.tables import (
    best_config,
    first_of,
    gain_text,
    mean_figure,
    ranked,
    ratio,
    summary_headings,
    summary_rows,
    verdict,
)

REPORT = "report.html"

WORDS = ("settings", "state", "compared with")
"""Columns of text, which may take several lines."""


def write_report(
    folder: Folder, summary: Summary, panels: Sequence[Panel], environment: Mapping[str, str]
) -> None:
    """Write the report of a sweep into its folder."""
    pictures = [PanelPage(number, panel) for number, panel in enumerate(panels)]
    charts = (
        [costs(summary), effects(summary)]
        if summary.cost
        else [gain_against_cost(summary), learning_curves(summary), effects(summary)]
    )
    sections = [
        _header(summary),
        _incomplete(summary),
        _tiles(summary),
        _finals(summary),
        _trials(summary),
        *charts,
        _pictures(pictures),
        _details(summary, environment),
    ]
    title = f"{summary.config.run.name}: vrtspike sweep"
    text = page(title, "".join(sections), "\n".join(picture.css() for picture in pictures))
    # A message may hold a file's name that is not text.
    folder.write(REPORT, text.encode(errors="backslashreplace"))


def _header(summary: Summary) -> str:
    config, sweep = summary.config, sweep_of(summary.config)
    about = [
        f"ranked by <b>{escape(METRICS[sweep.metric])}</b>",
        f"search {sweep.search}",
        f"scheduler {sweep.scheduler}",
        f"{summary.expected} trials of {budget_text(config.train)}",
        f"data {escape(str(Folder.at(config.data.source)))}",
    ]
    return header("vrtspike sweep", config.run.name, " · ".join(about))


def _incomplete(summary: Summary) -> str:
    if summary.missing is None:
        return ""
    fix = " The same command finishes it." if len(summary.rows) < summary.expected else ""
    return f"""
<section class="incomplete"><h2>This sweep is incomplete</h2>
<p>{escape(summary.missing[0].upper() + summary.missing[1:])}.{fix}</p></section>"""


def _tiles(summary: Summary) -> str:
    """Return the few numbers that most readers come for."""
    best = summary.best
    numbers = []
    if best is not None and not summary.cost:
        if (gain := best.gain) is not None:
            spread = "" if gain.spread is None else f"± {gain.spread:.2f}"
            runs = f"{len(best.rows)} and {len(best.baselines)} runs"
            numbers.append((signed(gain.value), spread, f"dB, the best over its baseline, {runs}"))
        if (psnr := mean_figure(best.rows, "psnr")) is not None:
            base = mean_figure(best.baselines, "psnr")
            beside = "" if base is None else f", baseline {base:.2f}"
            numbers.append((f"{psnr:.2f}", "dB", f"PSNR of the best{beside}"))
    if best is not None:
        others = [first_of(summary)] if summary.cost else best.baselines
        whose = "the first trial's" if summary.cost else "the baseline's"
        for name, what in (("step_s", "step time"), ("memory_gb", "memory")):
            share = ratio(best.rows, others, name)
            if share is not None:
                numbers.append((f"{share:.2f}", "×", f"{what} of the best over {whose}"))
    if summary.cost and summary.loss_differences:
        equal = sum(summary.equal(row) for row in summary.searched)
        numbers.append(
            (f"{equal}", f"of {len(summary.loss_differences)}", "trials with equal losses")
        )
    states = [row.state for row in summary.rows]
    text = f"trials done, {states.count('stopped')} stopped early, {states.count('failed')} failed"
    numbers.append((f"{states.count('done')}", f"of {summary.expected}", text))
    return tiles(numbers)


def _finals(summary: Summary) -> str:
    """Return the table of combinations that were trained with several seeds."""
    if summary.cost or not summary.finals:
        return f"<section><h2>Result</h2><p>{escape(verdict(summary))}</p></section>"
    rows = []
    for final in summary.finals:
        psnr, gain = mean_figure(final.rows, "psnr"), final.gain
        rows.append(
            [
                said(final.settings),
                ", ".join(str(row.trial.seed) for row in final.rows),
                "" if psnr is None else f"{psnr:.2f}",
                "" if gain is None else gain_text(gain),
                _compared_with(final),
            ]
        )
    heads = ["settings", "seeds", "PSNR", "gain", "compared with"]
    table = _table(heads, rows, lambda index: "best" if index == 0 else "")
    return f"""
<section><h2>Result</h2><p>{escape(verdict(summary))}</p>{table}</section>"""


def _compared_with(final: Final) -> str:
    """Say which baseline a combination is compared with."""
    if not final.baselines:
        return "no baseline as yet"
    psnr = mean_figure(final.baselines, "psnr")
    seeds = ", ".join(str(row.trial.seed) for row in final.baselines)
    figure = "" if psnr is None else f": {psnr:.2f} dB"
    return f"{said(final.baselines[0].trial.settings)}, seeds {seeds}{figure}"


def _trials(summary: Summary) -> str:
    """Return the table of all trials."""
    rows = ranked(summary)
    if not rows:
        return "<section><h2>Trials</h2><p>No trial has ended.</p></section>"
    styles = [style_of(summary, row) for row in rows]
    table = _table(
        summary_headings(summary),
        summary_rows(summary),
        lambda index: "best" if styles[index] == "fused" else "",
    )
    note = (
        "Loss difference: relative to the first trial's loss, the greatest of all steps."
        if summary.cost
        else f"val PSNR and val gain: at the trial's last step, validation split; the others: the "
        f"exported weights on {summary.config.evaluation.split}. Gains in dB over the baseline."
    ) + (
        " min: what the trial's steps took by the clock; CPU min: CPU time of a worker's process "
        "(rank 0) in them."
    )
    return f"""
<section><h2>Trials</h2>{table}<p class="note">{escape(note)}</p></section>"""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], style: Callable[[int], str]) -> str:
    """Return a table of texts; the first column names the row."""

    def cell(head: str, text: str) -> str:
        kind = "words" if head in WORDS else ""
        if head == heads[0]:
            return f'<th scope="row" class="{kind}">{escape(text)}</th>'
        if "gain" in head and text:
            kind = "up" if text.startswith("+") else "down"
        return f'<td class="{kind}">{escape(text)}</td>'

    top = "".join(
        f'<th scope="col" class="{"words" if head in WORDS else ""}">{escape(head)}</th>'
        for head in heads
    )
    body = "".join(
        f'<tr class="{style(index)}">'
        + "".join(cell(head, text) for head, text in zip(heads, row, strict=True))
        + "</tr>"
        for index, row in enumerate(rows)
    )
    return f"""<div class="scroll"><table class="dense"><thead><tr>{top}</tr></thead>
<tbody>{body}</tbody></table></div>"""


def _pictures(pictures: Sequence[PanelPage]) -> str:
    if not pictures:
        return ""
    return f"""
<section><h2>Best against baseline</h2>
<p class="note">Both with the sweep's own seed. Of each sequence the frame whose blurred input has
the lowest PSNR; close up, the place where blurred and sharp differ most. Neither choice looks at a
model.</p>
{"".join(picture.html() for picture in pictures)}</section>"""


def _details(summary: Summary, environment: Mapping[str, str]) -> str:
    """Return how the numbers were made: protocol, environment, settings."""
    best = best_config(summary)
    files = {"Settings of the sweep": dump_config(summary.config)}
    if best is not None:
        files["best.yaml, for vrtspike train"] = dump_config(best)
    texts = "".join(
        f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"
        for name, text in files.items()
    )
    protocol = "".join(f'<p class="note">{escape(line)}</p>' for line in _protocol(summary))
    return f"""
<section><h2>How this was made</h2><div class="split"><div><h3>Protocol</h3>{protocol}</div>
<div><h3>Environment</h3>{facts(environment)}</div></div>{texts}</section>"""


def _protocol(summary: Summary) -> list[str]:
    """Say how trials are compared."""
    config, sweep = summary.config, sweep_of(summary.config)
    train = config.train
    at_equal_time = (
        ""
        if train.minutes is None
        else " Each measures its first steps and takes as many as fit, without validation and "
        "saving."
    )
    budget = (
        f"All trials train for {budget_text(train)}, samples in the same order, on "
        f"{train.workers} worker(s) each.{at_equal_time}"
    )
    if summary.cost:
        return [
            budget,
            f"The settings change what a step costs and not what it computes: trials are ranked by "
            f"{METRICS[sweep.metric]}. Losses count as equal that differ, relative, by no more "
            "than rounding grown over the steps; a trial whose losses differ is never the best.",
            "Step time is the median over the steps, memory the most of a worker (rank 0).",
        ]
    cut = "" if sweep.scheduler == "none" else f" and may be cut short ({sweep.scheduler})"
    return [
        budget + f" The trials of the search have one seed{cut}; the baseline is never cut short.",
        f"Trials are ranked by the {METRICS[sweep.metric]} ({config.data.val_split}). PSNR, SSIM, "
        f"LPIPS and gains are those of the exported weights on {config.evaluation.split}. "
        + (
            "That is the same split: the best is chosen by the number that is reported, which "
            "flatters it."
            if summary.same_split
            else "So the best is not chosen by the number that is reported."
        ),
        "A gain is the PSNR over that of the model without spikes (means over "
        "seeds). ± is the standard error of that difference over the seeds, where a single run is "
        "taken to vary as much as repeated ones; without ± nothing was repeated. The result "
        "compares finalists with a baseline of their own settings, as far as it has them; the "
        "other table and the charts compare all trials with the sweep's own baseline.",
        "The val gain of a trial that was cut short is at its last step, over the baseline's "
        "validation at the same share of its steps.",
    ]
