"""Write docs/results.md from what `vrtspike evaluate` and `vrtspike tune` left.

    python docs/make_results.py runs/results/scenes --sweep runs/tune_fusion [--out docs/results.md]

In: folders of evaluations, results.csv of sweeps. Out: the page, strips of pictures beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parent))
from picture_strip import write_strip

from vrtspike.report.methods import BASELINE, is_model, method
from vrtspike.report.page import signed
from vrtspike.report.tables import OTHERS
from vrtspike.report.text import markdown
from vrtspike.storage.csv_text import cell_text

NOTE = """Mean over all frames ± standard deviation over sequences of a sequence's mean. Gains are
in dB of PSNR: mean over sequences ± its standard error."""
METRICS = {"psnr": ("PSNR (dB)", 2, max), "ssim": ("SSIM", 4, max)} | {
    metric: (heading, digits, best) for metric, (heading, digits, _, best) in OTHERS.items()
}
SWEEP = ("name", "state", "steps", "psnr", "gain", "gain_spread", "step_s", "memory_gb")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; its first column is text, the others numbers."""
    lines = [list(map(markdown, heads)), ["---"] + ["---:"] * (len(heads) - 1)]
    lines += [list(map(markdown, row)) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], digits: int, count: float = 1) -> str:
    """Return ± the standard deviation, over the root of a count."""
    return f" ± {statistics.stdev(values) / count**0.5:.{digits}f}" if len(values) > 1 else ""


def methods_table(found: dict[str, Any], split: str) -> str:
    """Return the table of all methods; the best figure of a column is bold."""
    heads, columns = ["method"], [[method(name).name for name in found[split]]]
    for metric, (heading, digits, best) in METRICS.items():
        means = {name: scores[metric] for name, scores in found[split].items()}
        if None not in means.values():
            top = f"{best(means.values()):.{digits}f}"
            heads.append(heading)
            columns.append([])
            for name, mean in means.items():
                each = [scores[name][metric] for scores in found["sequences"].values()]
                text = f"{mean:.{digits}f}"
                columns[-1].append((f"**{text}**" if text == top else text) + spread(each, digits))
    return table(heads, zip(*columns, strict=True))


def gains_table(found: dict[str, Any], split: str) -> str:
    """Return the table of what each model gains over the input and the baseline, by sequence."""
    over = [name for name in ("blurred", BASELINE) if name in found[split]]
    rows = []
    for name in filter(is_model, found[split]):
        rows.append([method(name).name])
        for other in over:
            each = [s[name]["psnr"] - s[other]["psnr"] for s in found["sequences"].values()]
            gain = signed(statistics.fmean(each)) + spread(each, 2, len(each))
            rows[-1].append("" if name == other else gain)
    return table(["gain (dB)", *(f"over {method(other).name}" for other in over)], rows)


def robustness(found: dict[str, Any]) -> str:
    """Return the table of the levels at which models fall under what they are held against."""
    rows = []
    for name, answers in found["models"].items():
        for kind, answer in answers.items():
            falls = answer["falls_at"].items()
            each = (f"{side}: {'never' if at is None else f'{at:.3g}'}" for side, at in falls)
            text = ", ".join(each)
            rows.append([f"{method(name).name}, {kind}", text])
    under = f"falls under {method(found['reference']).name} at"
    return table(["disturbance", under], rows)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("--sweep", action="append", default=[], type=Path)
    parser.add_argument("--out", default="docs/results.md", type=Path)
    asked = parser.parse_args()
    files = asked.out.with_name(f"{asked.out.stem}_files")
    files.mkdir(parents=True, exist_ok=True)
    parts = ["# Evaluation", NOTE]
    for folder in asked.evaluations:
        found = json.loads((folder / "results.json").read_text("utf-8"))
        split = next(k for k in found if k not in ("protocol", "mean_over_clips", "sequences"))
        parts += [f"## {markdown(folder.name)}", f"{len(found['sequences'])} sequences of {split}."]
        parts += [methods_table(found, split), gains_table(found, split)]
        if (shown := write_strip(folder, split, files / folder.name)) is not None:
            parts += [f"![]({files.name}/{quote(shown[0].name)})", markdown(shown[1])]
        if "robustness" in found:
            parts += ["### Disturbed spikes", robustness(found["robustness"])]
    for folder in asked.sweep:
        lines = list(csv.DictReader((folder / "results.csv").read_text("utf-8").splitlines()))
        swept = [head for head in lines[0] if "." in head]
        heads = [SWEEP[0], *swept, *SWEEP[1:]]
        rows = [[cell_text(line[head]) for head in heads] for line in lines]
        parts += [f"## Sweep {markdown(folder.name)}", table(heads, rows)]
    asked.out.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
