"""The figures of a sweep as files, and as text that a terminal and a page show.

In: a summary. Out, in the sweep's folder:

    results.csv    one line a trial
    results.json   the same, the combinations with all their seeds, the best, what is missing
    best.yaml      the sweep's configuration with the best settings, for `vrtspike train`

A figure that there is not is empty in the table, and null in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from vrtspike.config.config import Config
from vrtspike.config.loader import change, dump_config
from vrtspike.errors import DataFormatError, one_line
from vrtspike.report.page import signed
from vrtspike.storage.csv_text import csv_cell
from vrtspike.storage.folder import Folder
from vrtspike.storage.json_text import parse_json_mapping
from vrtspike.storage.uri import without_secrets
from vrtspike.tuning.space import said, sweep_of
from vrtspike.tuning.summary import Final, Summary, TrialGain, mean_of
from vrtspike.tuning.trial_results import Trial, TrialResult, figure_of

CSV, JSON, BEST = "results.csv", "results.json", "best.yaml"

SCORES = ("val_psnr", "val_ssim", "psnr", "ssim", "lpips")
COSTS = ("step_s", "memory_gb")
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "val PSNR": ("val_psnr", "{:.2f}".format),
    "val gain": ("val_gain", signed),
    "PSNR": ("psnr", "{:.2f}".format),
    "SSIM": ("ssim", "{:.4f}".format),
    "LPIPS": ("lpips", "{:.4f}".format),
    "gain": ("gain", signed),
    "steps": ("steps", "{:,}".format),
    "min": ("spent_s", lambda seconds: f"{seconds / 60:.3g}"),
    "CPU min": ("spent_cpu_s", lambda seconds: f"{seconds / 60:.3g}"),
    "s/step": ("step_s", "{:.3g}".format),
    "GB": ("memory_gb", "{:.3g}".format),
    "loss difference": ("loss_difference", lambda value: f"{value:.1e}" if value else "0"),
    "loss": ("loss_equal", lambda equal: "equal" if equal else "differs"),
}
"""Columns of the table of trials between the settings and the state: the figure and its text."""
OF_COST, OF_SCORES = ("loss difference", "loss"), ("val PSNR", "val gain", "PSNR", "SSIM", "gain")


def write_results(folder: Folder, summary: Summary) -> None:
    """Write results.csv, results.json and, where there is a best combination, best.yaml."""
    _write(folder, CSV, _csv(summary))
    _write(folder, JSON, json.dumps(_results(summary), indent=2, allow_nan=False) + "\n")
    best = best_config(summary)
    if best is None:
        folder.remove(BEST)
    else:
        _write(folder, BEST, dump_config(best))


def read_results(folder: Folder) -> dict[str, Any]:
    """Return what results.json holds; damage is a DataFormatError."""
    try:
        return parse_json_mapping(folder.read(JSON))
    except ValueError as error:
        raise DataFormatError(
            f"the sweep's {JSON} is damaged: {one_line(error, 100)}",
            where=folder,
            fix="tune again: the same command writes it again",
        ) from None


def best_config(summary: Summary) -> Config | None:
    """Return the configuration that trains the best combination outside the sweep."""
    if summary.best is None:
        return None
    name = f"{summary.config.run.name}-best"
    return change(summary.config, {**summary.best.settings, "run.name": name, "sweep": None})


def trial_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table of trials: baselines, then the search, best first."""
    scored = any(row.lpips is not None for row in summary.rows)
    hidden = {*OF_SCORES, "LPIPS"} if summary.cost else {*OF_COST, *["LPIPS"] * (not scored)}
    columns = {name: column for name, column in COLUMNS.items() if name not in hidden}
    rows = []
    for row in ranked(summary):
        facts = _facts(summary, row)
        texts = {
            name: "" if (value := facts[figure]) is None else written(value)
            for name, (figure, written) in columns.items()
        }
        if facts["gain"] is not None:
            texts["gain"] = gain_text(TrialGain(facts["gain"], facts["gain_spread"]))
        rows.append([row.trial.name, said(row.trial.settings), *texts.values(), state_text(row)])
    return ["trial", "settings", *columns, "state"], rows


def verdict(summary: Summary) -> str:
    """Say on one line which combination is best, and what it is worth."""
    best = summary.best
    if best is None:
        return f"there is no best combination: {summary.missing or 'no trial came to its end'}"
    parts = []
    if summary.cost:
        for name, unit in (("step_s", "s/step"), ("memory_gb", "GB")):
            share = ratio(best.rows, [first_of(summary)], name)
            if share is not None:
                ours = mean_of(best.rows, name)
                parts.append(f"{ours:.3g} {unit} ({share:.2f} of the first trial's)")
    else:
        psnr, count = mean_of(best.rows, "psnr"), len(best.rows)
        if psnr is not None:
            runs = "one run" if count == 1 else f"mean of {count} seeds"
            parts.append(f"{psnr:.2f} dB ({runs})")
        if best.gain is not None:
            flattered = ", on the split that chose it" if summary.same_split else ""
            parts.append(f"{gain_text(best.gain)} dB over the baseline{flattered}")
    return f"best: {said(best.settings)}" + (f": {', '.join(parts)}" if parts else "")


def ranked(summary: Summary) -> list[TrialResult]:
    """Return all rows: baselines, then combinations from best to worst, each with its repeats."""
    figure = figure_of(sweep_of(summary.config).metric)
    # What is cheap because it computes something else is not good.
    finals = sorted(summary.finals, key=lambda f: summary.cost and not summary.equal(f.rows[0]))
    order = [final.rows[0].trial.number for final in finals]
    others = pd.DataFrame(
        [
            (row.trial.number, row.state, row.share or 0.0, row.steps, getattr(row, figure))
            for row in summary.searched
            if row.trial.number not in order
        ],
        columns=["number", "state", "share", "steps", "value"],
    ).astype({"value": float})
    others["state"] = others["state"].map({"done": 0, "stopped": 1, "failed": 2})
    by = ["state", "share", "steps", "value"]
    rising = [True, False, False, summary.cost]
    order += others.sort_values(by, ascending=rising, kind="stable")["number"].tolist()
    return sorted(
        summary.rows,
        key=lambda row: (
            row.trial.arm != "baseline",
            order.index(row.trial.number) if row.trial.number in order else len(order),
            row.trial.arm != "search",
            row.trial.name,
        ),
    )


def first_of(summary: Summary) -> TrialResult:
    """Return the trial to which the others of a sweep over cost are compared, one that is done."""
    return next(row for row in summary.searched if row.state == "done")


def ratio(rows: Sequence[TrialResult], others: Sequence[TrialResult], figure: str) -> float | None:
    """Return the mean of a figure over that of other rows."""
    ours, theirs = mean_of(rows, figure), mean_of(others, figure)
    return ours / theirs if ours is not None and theirs else None


def gain_text(gain: TrialGain) -> str:
    """Write a gain in dB with its spread."""
    return signed(gain.value) + ("" if gain.spread is None else f" ± {gain.spread:.2f}")


def state_text(row: TrialResult) -> str:
    """Say how a trial ended."""
    if row.state == "stopped":
        return f"stopped at {row.steps:,}"
    return f"failed: {one_line(row.error)}" if row.state == "failed" and row.error else row.state


def setting_text(value: object) -> str:
    """Write the value of a setting: strings as they are, everything else as JSON."""
    return without_secrets(value) if isinstance(value, str) else json.dumps(value)


def _facts(summary: Summary, row: TrialResult) -> dict[str, Any]:
    """Return what is written of a trial."""
    gain, name = summary.gain(row), row.trial.name
    difference = summary.loss_differences.get(name, math.inf)
    return {
        "name": name,
        "arm": row.trial.arm,
        "number": row.trial.number,
        "seed": row.trial.seed,
        "state": row.state,
        "steps": row.steps,
        "settings": dict(row.trial.settings),
        **{score: getattr(row, score) for score in SCORES},
        "gain": gain and gain.value,
        "gain_spread": gain and gain.spread,
        "val_gain": None if summary.cost else summary.val_gain(row),
        "loss": row.loss,
        "loss_difference": difference if math.isfinite(difference) else None,
        "loss_equal": summary.equal(row) if name in summary.loss_differences else None,
        **{cost: getattr(row, cost) for cost in COSTS},
        "seconds": row.seconds,
        "spent_s": row.spent_s,
        "spent_cpu_s": row.spent_cpu_s,
        "stopped_early": row.state == "stopped",
        "error": row.error,
    }


def _csv(summary: Summary) -> str:
    """Return one line a trial; each setting that is swept has a column."""
    heads = list(_facts(summary, TrialResult(Trial("", "search", {}, 0), "failed")))
    rows = [_facts(summary, row) for row in summary.rows]
    table = pd.DataFrame(rows, columns=heads, dtype=object)
    settings = table.pop("settings")
    for place, key in enumerate(sweep_of(summary.config).space, heads.index("settings")):
        values = [setting_text(found[key]) if key in found else "" for found in settings]
        table.insert(place, key, pd.Series(values, dtype=object))
    text: str = table.map(_cell).to_csv(index=False, lineterminator="\n")
    return text


def _cell(value: object) -> object:
    """Write a figure, or text on one line."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
    # pandas keeps no text that is not Unicode, as a message with a file's name may be.
    return csv_cell(one_line(value).encode(errors="backslashreplace").decode())


def _results(summary: Summary) -> dict[str, Any]:
    """Return what results.json holds."""
    sweep = sweep_of(summary.config)
    return {
        "name": summary.config.run.name,
        "complete": summary.missing is None,
        "missing": summary.missing,
        "problems": summary.problems,
        "metric": sweep.metric,
        "ranked_on": summary.config.data.val_split,
        "same_split": summary.same_split,
        "scored_on": None if summary.cost else summary.config.evaluation.split,
        "best": None if summary.best is None else _final(summary, summary.best),
        "finals": [_final(summary, final) for final in summary.finals],
        "trials": [_facts(summary, row) for row in summary.rows],
        "settings": sweep.model_dump(mode="json"),
    }


def _final(summary: Summary, final: Final) -> dict[str, Any]:
    """Return what is written of a combination."""
    gain, baselines = None if summary.cost else final.gain, final.baselines
    return {
        "settings": dict(final.settings),
        **_means(final.rows),
        "value": mean_of(final.rows, figure_of(sweep_of(summary.config).metric)),
        "gain": gain and gain.value,
        "spread": gain and gain.spread,
        "baseline": {"settings": dict(baselines[0].trial.settings), **_means(baselines)}
        if baselines
        else None,
    }


def _means(rows: Sequence[TrialResult]) -> dict[str, Any]:
    """Return the runs of a combination and the means of their figures."""
    return {
        "trials": [row.trial.name for row in rows],
        "seeds": [row.trial.seed for row in rows],
        **{name: mean_of(rows, name) for name in (*SCORES, *COSTS)},
    }


def _write(folder: Folder, file: str, text: str) -> None:
    # A message may hold a file's name that is not text.
    folder.write(file, text.encode(errors="backslashreplace"))
