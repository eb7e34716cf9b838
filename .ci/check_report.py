"""Fail unless a demo's results.json holds its numbers and report.html shows them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

CONTROLS, TRAINED = ("blurred", "tfp", "tfi", "sdm"), ("baseline", "fused")
METHODS = (*CONTROLS, *TRAINED, "small (packaged)", "small-no-spike (packaged)")
METRICS = (("psnr", 5.0, 100.0, 2), ("ssim", -1.0, 1.0, 4), ("tdiff", 0.0, 255.0, 2))
"""Name, least and greatest value that can be right, decimals in the report."""


def missing(run: Path, split: str = "held_out") -> list[str]:
    """List what the report of a run lacks."""
    results, report = run / "results.json", run / "report.html"
    absent = [f"{path} is missing" for path in (results, report) if not path.is_file()]
    if absent:
        return absent
    numbers = json.loads(results.read_text(encoding="utf-8")).get(split, {})
    page = report.read_text(encoding="utf-8")
    lacking = []
    for method in METHODS:
        for metric, least, most, places in METRICS:
            value = numbers.get(method, {}).get(metric)
            if not isinstance(value, float) or not math.isfinite(value):
                lacking.append(f"{results}: {split}.{method}.{metric} is {value!r}")
            elif not least <= value <= most:
                lacking.append(f"{results}: {split}.{method}.{metric} is {value}, out of range")
            elif f"{value:.{places}f}" not in page:
                lacking.append(f"{report}: does not show {method}'s {metric} {value:.{places}f}")
    return lacking


if __name__ == "__main__":
    found = missing(Path(sys.argv[1]))
    print("\n".join(found) if found else f"{sys.argv[1]}: the report has its numbers")
    sys.exit(1 if found else 0)
