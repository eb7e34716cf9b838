"""The report of a sweep: one HTML file, no network, light and dark.

In: a summary of the sweep as far as it is, pictures of the best and the baseline (`baseline` and
`fused`) when there are any, and the environment. Out: report.html with what spikes buy and what
they cost, every trial, charts, and how all of it was made. It is written again whenever a trial
ends, so any part may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vrtspike.config.loader import dump_config
from vrtspike.evaluation.results import Panel
from vrtspike.report.page import Cell, fill, signed
from vrtspike.report.pictures import PanelPage
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
from vrtspike.tuning.summary import Final, Summary, mean_of
from vrtspike.tuning.tables import (
    best_config,
    first_of,
    gain_text,
    ranked,
    ratio,
    trial_table,
    verdict,
)

REPORT = "report.html"

WORDS = ("settings", "state", "compared with")
"""Columns of text, which may take several lines."""


def write_report(
    folder: Folder, summary: Summary, panels: Sequence[Panel], environment: Mapping[str, str]
) -> None:
    """Write the report of a sweep into its folder."""
    config, best = summary.config, best_config(summary)
    parts = (costs, effects) if summary.cost else (gain_against_cost, learning_curves, effects)
    heads, rows = trial_table(summary)
    styles = [style_of(summary, row) for row in ranked(summary)]
    text = fill(
        "sweep.html.j2",
        title=config.run.name,
        summary=summary,
        sweep=sweep_of(config),
        metric=METRICS[sweep_of(config).metric],
        budget=budget_text(config.train),
        data=Folder.at(config.data.source),
        tiles=_tiles(summary),
        verdict=verdict(summary),
        finals=_finals(summary),
        words=WORDS,
        heads=heads,
        trials=[
            _cells(heads, row, best=style == "fused")
            for row, style in zip(rows, styles, strict=True)
        ],
        sections=[section for part in parts if (section := part(summary)) is not None],
        panels=[PanelPage(number, panel) for number, panel in enumerate(panels)],
        protocol=_protocol(summary),
        environment=environment,
        files={
            "Settings of the sweep": dump_config(config),
            **({"best.yaml, for vrtspike train": dump_config(best)} if best is not None else {}),
        },
    )
    # A message may hold a file's name that is not text.
    folder.write(REPORT, text.encode(errors="backslashreplace"))


def _cells(heads: Sequence[str], row: Sequence[str], *, best: bool) -> list[Cell]:
    """Return a row of a table; gains are coloured, the best row stands out."""
    cells = []
    for head, text in zip(heads, row, strict=True):
        style = "best" if best else ""
        if "gain" in head and text:
            style += " up" if text.startswith("+") else " down"
        cells.append(Cell(text, style.strip()))
    return cells


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the few numbers that most readers come for."""
    best = summary.best
    numbers: list[tuple[str, str, str]] = []
    if best is not None and not summary.cost:
        if (gain := best.gain) is not None:
            spread = "" if gain.spread is None else f"± {gain.spread:.2f}"
            runs = f"{len(best.rows)} and {len(best.baselines)} runs"
            numbers.append((signed(gain.value), spread, f"dB, the best over its baseline, {runs}"))
        if (psnr := mean_of(best.rows, "psnr")) is not None:
            base = mean_of(best.baselines, "psnr")
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
    return numbers


def _finals(summary: Summary) -> list[list[Cell]]:
    """Return the table of combinations that were trained with several seeds, best first."""
    rows = []
    for final in [] if summary.cost else summary.finals:
        psnr, gain = mean_of(final.rows, "psnr"), final.gain
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
    return [_cells(heads, row, best=not index) for index, row in enumerate(rows)]


def _compared_with(final: Final) -> str:
    """Say which baseline a combination is compared with."""
    if not final.baselines:
        return "no baseline as yet"
    psnr = mean_of(final.baselines, "psnr")
    seeds = ", ".join(str(row.trial.seed) for row in final.baselines)
    figure = "" if psnr is None else f": {psnr:.2f} dB"
    return f"{said(final.baselines[0].trial.settings)}, seeds {seeds}{figure}"


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
