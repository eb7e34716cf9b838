"""The figures of a sweep as files, and as text that a terminal and a page show.

In: a summary. Out, in the sweep's folder:

    results.csv    one line a trial
    results.json   the same, the combinations with all their seeds, the best, what is missing
    best.yaml      the sweep's configuration with the best settings, for `vrtspike train`

A figure that there is not is empty in the table, and null in JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrtspike.config.config import Config
from vrtspike.config.loader import change, dump_config
from vrtspike.errors import DataFormatError, one_line
from vrtspike.report.tables import signed
from vrtspike.storage.csv_text import csv_cell
from vrtspike.storage.folder import Folder
from vrtspike.storage.json_text import parse_json_mapping
from vrtspike.storage.uri import without_secrets
from vrtspike.tuning.space import said, sweep_of
from vrtspike.tuning.summary import Final, Summary, TrialGain, mean_of
from vrtspike.tuning.trial_results import Trial, TrialResult

CSV, JSON, BEST = "results.csv", "results.json", "best.yaml"

SCORES = ("val_psnr", "val_ssim", "psnr", "ssim", "lpips")
COSTS = ("step_s", "memory_gb")


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


def summary_headings(summary: Summary) -> list[str]:
    """Return the headings of the table of trials."""
    return list(_columns(summary))


def summary_rows(summary: Summary) -> list[list[str]]:
    """Return the table of trials: baselines, then the search, best first."""
    columns = _columns(summary).values()
    return [[text(row) for text in columns] for row in ranked(summary)]


def verdict(summary: Summary) -> str:
    """Say on one line which combination is best, and what it is worth."""
    best = summary.best
    if best is None:
        return f"there is no best combination: {summary.missing or 'no trial came to its end'}"
    parts = []
    if summary.cost:
        first = first_of(summary)
        for name, unit in (("step_s", "s/step"), ("memory_gb", "GB")):
            share = ratio(best.rows, [first], name)
            if share is not None:
                ours = mean_figure(best.rows, name)
                parts.append(f"{ours:.3g} {unit} ({share:.2f} of the first trial's)")
    else:
        psnr, count = mean_figure(best.rows, "psnr"), len(best.rows)
        runs = "one run" if count == 1 else f"mean of {count} seeds"
        if psnr is not None:
            parts.append(f"{psnr:.2f} dB ({runs})")
        if best.gain is not None:
            flattered = ", on the split that chose it" if summary.same_split else ""
            parts.append(f"{gain_text(best.gain)} dB over the baseline{flattered}")
    return f"best: {said(best.settings)}" + (f": {', '.join(parts)}" if parts else "")


def ranked(summary: Summary) -> list[TrialResult]:
    """Return all rows: baselines, then combinations from best to worst, each with its repeats."""
    sweep = sweep_of(summary.config)
    sign = 1 if summary.cost else -1
    states = ("done", "stopped", "failed")

    def place(row: TrialResult) -> tuple[float, ...]:
        value = row.value(sweep.metric)
        done = -(row.share or 0.0)
        return states.index(row.state), done, -row.steps, value is None, sign * (value or 0.0)

    # What is cheap because it computes something else is not good.
    finals = sorted(
        summary.finals, key=lambda final: summary.cost and not summary.equal(final.rows[0])
    )
    order = [final.rows[0].trial.number for final in finals]
    others = [row for row in summary.searched if row.trial.number not in order]
    order += [row.trial.number for row in sorted(others, key=place)]
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


def mean_figure(rows: Sequence[TrialResult], name: str) -> float | None:
    """Return the mean of one of the rows' figures, of those that have it."""
    found = [float(value) for row in rows if (value := getattr(row, name)) is not None]
    return statistics.fmean(found) if found else None


def ratio(rows: Sequence[TrialResult], others: Sequence[TrialResult], name: str) -> float | None:
    """Return the mean of a figure over that of other rows."""
    ours, theirs = mean_figure(rows, name), mean_figure(others, name)
    return ours / theirs if ours is not None and theirs else None


def gain_text(gain: TrialGain) -> str:
    """Write a gain in dB with its spread."""
    return signed(gain.value) + ("" if gain.spread is None else f" ± {gain.spread:.2f}")


def state_text(row: TrialResult) -> str:
    """Say how a trial ended."""
    match row.state:
        case "stopped":
            return f"stopped at {row.steps:,}"
        case "failed":
            return f"failed: {one_line(row.error)}" if row.error else "failed"
        case _:
            return "done"


def setting_text(value: object) -> str:
    """Write the value of a setting: strings as they are, everything else as JSON."""
    return without_secrets(value) if isinstance(value, str) else json.dumps(value)


def _columns(summary: Summary) -> dict[str, Callable[[TrialResult], str]]:
    """Return how each column of the table of trials writes a row."""

    def figure(name: str, digits: str) -> Callable[[TrialResult], str]:
        def text(row: TrialResult) -> str:
            value = getattr(row, name)
            return "" if value is None else f"{value:{digits}}"

        return text

    def minutes(name: str) -> Callable[[TrialResult], str]:
        def text(row: TrialResult) -> str:
            seconds = getattr(row, name)
            return "" if seconds is None else f"{seconds / 60:.3g}"

        return text

    def gain(row: TrialResult) -> str:
        found = summary.gain(row)
        return "" if found is None else gain_text(found)

    def val_gain(row: TrialResult) -> str:
        found = summary.val_gain(row)
        return "" if found is None else signed(found)

    def difference(row: TrialResult) -> str:
        found = _finite(summary.loss_differences.get(row.trial.name))
        return "" if found is None else f"{found:.1e}" if found else "0"

    def equal(row: TrialResult) -> str:
        known = row.trial.name in summary.loss_differences
        return ("equal" if summary.equal(row) else "differs") if known else ""

    columns: dict[str, Callable[[TrialResult], str]] = {
        "trial": lambda row: row.trial.name,
        "settings": lambda row: said(row.trial.settings),
    }
    if not summary.cost:
        columns |= {
            "val PSNR": figure("val_psnr", ".2f"),
            "val gain": val_gain,
            "PSNR": figure("psnr", ".2f"),
            "SSIM": figure("ssim", ".4f"),
        }
        if any(row.lpips is not None for row in summary.rows):
            columns["LPIPS"] = figure("lpips", ".4f")
        columns["gain"] = gain
    columns |= {
        "steps": lambda row: f"{row.steps:,}",
        "min": minutes("spent_s"),
        "CPU min": minutes("spent_cpu_s"),
        "s/step": figure("step_s", ".3g"),
        "GB": figure("memory_gb", ".3g"),
    }
    if summary.cost:
        columns |= {"loss difference": difference, "loss": equal}
    return columns | {"state": state_text}


def _facts(summary: Summary, row: TrialResult) -> dict[str, Any]:
    """Return what is written of a trial."""
    gain = summary.gain(row)
    name = row.trial.name
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
        "loss_difference": _finite(summary.loss_differences.get(name)),
        "loss_equal": summary.equal(row) if name in summary.loss_differences else None,
        **{cost: getattr(row, cost) for cost in COSTS},
        "seconds": row.seconds,
        "spent_s": row.spent_s,
        "spent_cpu_s": row.spent_cpu_s,
        "stopped_early": row.state == "stopped",
        "error": row.error,
    }


def _csv(summary: Summary) -> str:
    keys = list(sweep_of(summary.config).space)
    nothing = TrialResult(Trial("", "search", {}, 0), "failed")
    before, after = _split_at(list(_facts(summary, nothing)), "settings")
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*before, *keys, *after])
    for row in summary.rows:
        facts = _facts(summary, row)
        values = [
            setting_text(facts["settings"][key]) if key in facts["settings"] else "" for key in keys
        ]
        cells = [[_cell(facts[head]) for head in heads] for heads in (before, after)]
        lines.writerow(map(csv_cell, [*cells[0], *values, *cells[1]]))
    return text.getvalue()


def _split_at(names: list[str], name: str) -> tuple[list[str], list[str]]:
    """Return the names before one, and those after it."""
    return names[: names.index(name)], names[names.index(name) + 1 :]


def _cell(value: object) -> str:
    """Write a figure, or text on one line."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case _:
            return one_line(value)


def _results(summary: Summary) -> dict[str, Any]:
    """Return what results.json holds."""
    sweep = sweep_of(summary.config)
    best = summary.best
    return {
        "name": summary.config.run.name,
        "complete": summary.missing is None,
        "missing": summary.missing,
        "problems": summary.problems,
        "metric": sweep.metric,
        "ranked_on": summary.config.data.val_split,
        "same_split": summary.same_split,
        "scored_on": None if summary.cost else summary.config.evaluation.split,
        "best": None if best is None else _final(summary, best),
        "finals": [_final(summary, final) for final in summary.finals],
        "trials": [_facts(summary, row) for row in summary.rows],
        "settings": sweep.model_dump(mode="json"),
    }


def _final(summary: Summary, final: Final) -> dict[str, Any]:
    """Return what is written of a combination."""
    gain = None if summary.cost else final.gain
    return {
        "settings": dict(final.settings),
        **_means(final.rows),
        "value": mean_of(final.rows, sweep_of(summary.config).metric),
        "gain": gain and gain.value,
        "spread": gain and gain.spread,
        "baseline": _baseline(final.baselines),
    }


def _baseline(rows: Sequence[TrialResult]) -> Mapping[str, Any] | None:
    return {"settings": dict(rows[0].trial.settings), **_means(rows)} if rows else None


def _means(rows: Sequence[TrialResult]) -> dict[str, Any]:
    """Return the runs of a combination and the means of their figures."""
    return {
        "trials": [row.trial.name for row in rows],
        "seeds": [row.trial.seed for row in rows],
        **{name: mean_figure(rows, name) for name in (*SCORES, *COSTS)},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _write(folder: Folder, file: str, text: str) -> None:
    # A message may hold a file's name that is not text.
    folder.write(file, text.encode(errors="backslashreplace"))
