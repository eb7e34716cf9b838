"""The trials of a finished sweep as a section of a Markdown page.

In: what the sweep's results.json holds. Out: a heading and a table, a line for each trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vrtspike.report.evaluation_page import counted
from vrtspike.report.markdown import table
from vrtspike.report.text import markdown
from vrtspike.tuning.space import said
from vrtspike.tuning.summary import TrialGain
from vrtspike.tuning.tables import gain_text

HEADS = ("trial", "settings", "steps", "min", "CPU min", "PSNR (dB)", "gain (dB)", "s/step", "GB")


def sweep_section(facts: Mapping[str, Any]) -> str:
    """Return the section on a sweep."""
    about = [counted(len(facts["trials"]), "trial")]
    if facts["scored_on"]:
        about.append(f"PSNR on `{facts['scored_on']}`")
    about.append("gain over the sweep's own baseline \N{PLUS-MINUS SIGN} its standard error")
    if facts["missing"]:
        about.append(f"not complete: {facts['missing']}")
    rows = [_row(trial) for trial in facts["trials"]]
    return (
        f"## Sweep {markdown(str(facts['name']))}\n\n{markdown(', '.join(about))}.\n\n"
        f"{table(HEADS, rows, words=2)}"
    )


def _row(trial: Mapping[str, Any]) -> list[str]:
    gain, spread = trial["gain"], trial["gain_spread"]
    state = "" if trial["state"] == "done" else f" ({trial['state']})"
    return [
        str(trial["name"]),
        said(trial["settings"]),
        f"{trial['steps']:,}{state}",
        *(_number(_minutes(trial[name]), ".3g") for name in ("spent_s", "spent_cpu_s")),
        _number(trial["psnr"], ".2f"),
        "" if gain is None else gain_text(TrialGain(gain, spread)),
        _number(trial["step_s"], ".3g"),
        _number(trial["memory_gb"], ".3g"),
    ]


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else f"{value:{digits}}"
