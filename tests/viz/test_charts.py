"""Charts put values where they belong and say them."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from vrtspike.viz.charts import Line, dot_chart, line_chart, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (27.01, 27.9), (-0.3, 2.2), (5, 5), (0, 0), (1e-5, 3e-5)]
)
def test_ticks_are_round_few_and_enclose_the_values(low: float, high: float) -> None:
    marks = ticks(low, high, 4)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8
    steps = {f"{b - a:.6g}" for a, b in itertools.pairwise(marks)}
    assert len(steps) == 1
    assert re.fullmatch(r"(1|2|2\.5|5)e[+-]\d+", f"{float(steps.pop()):.1e}".replace(".0e", "e"))


def test_a_higher_value_is_drawn_higher() -> None:
    chart = line_chart(
        [Line("a", "fused", ((0, 1.0), (10, 3.0))), Line("b", "baseline", ((5, 2.0),))],
        x_name="step",
        y_name="PSNR",
        digits=2,
    )
    circles = ElementTree.fromstring(chart).findall("circle")
    places = {c[0].text: (float(c.get("cx", 0)), float(c.get("cy", 0))) for c in circles}
    first, last, middle = (
        places[t] for t in ("a, step 0: 1.00", "a, step 10: 3.00", "b, step 5: 2.00")
    )
    assert first[0] < middle[0] < last[0]
    assert first[1] > middle[1] > last[1]


def test_dots_lie_on_either_side_of_zero_and_names_are_escaped() -> None:
    chart = dot_chart({"<a>": [("x", "fused", 1.0), ("y", "baseline", -1.0)]}, what="gain")
    root = ElementTree.fromstring(chart)
    (zero,) = (line for line in root.findall("line") if line.get("class") == "zero")
    right, left = (float(circle.get("cx", 0)) for circle in root.findall("circle"))
    assert left < float(zero.get("x1", 0)) < right
    assert "<a>" in [text.text for text in root.findall("text")]
