"""Charts put values where they belong and say them."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from vrtspike.report.charts import (
    Line,
    Mark,
    Reference,
    bar_chart,
    dot_chart,
    line_chart,
    log_ticks,
    scatter_chart,
    ticks,
)


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


@pytest.mark.parametrize(
    ("low", "high"), [(1e-4, 1e-2), (2e-4, 3e-4), (1e-3, 1e-3), (3.0, 3.0), (1e-9, 1e9), (0.5, 70)]
)
def test_ticks_of_a_logarithm_are_round_few_and_enclose_the_values(low: float, high: float) -> None:
    marks = log_ticks(low, high)
    assert marks[0] <= low * (1 + 1e-9)
    assert marks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(marks) <= 9
    assert marks == sorted(set(marks))
    assert {f"{mark:.3e}".split("e")[0] for mark in marks} <= {"1.000", "2.000", "5.000"}


def places(chart: str) -> dict[str, tuple[float, float]]:
    """Return where the dots of a chart are, by the first word of what they say."""
    circles = ElementTree.fromstring(chart).findall("circle")
    return {
        (c[0].text or "").split(",")[0]: (float(c.get("cx", 0)), float(c.get("cy", 0)))
        for c in circles
    }


@pytest.mark.parametrize("log", [False, True])
def test_dots_lie_where_their_number_or_its_logarithm_is(log: bool) -> None:
    xs = (1e-4, 1e-3, 1e-2) if log else (1.0, 2.0, 3.0)
    marks = [Mark(f"m{i}", "trial", x, float(i)) for i, x in enumerate(xs)]
    found = places(scatter_chart(marks, x_name="lr", y_name="gain", log=log))
    (left, low), (middle, half), (right, high) = found["m0"], found["m1"], found["m2"]
    assert left < middle < right
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert half == pytest.approx((low + high) / 2, abs=0.1)
    assert low > high


def test_columns_have_names_and_equal_distances() -> None:
    columns = ("temporal", "<b>", "a name that is too long for the column that it is the name of")
    marks = [Mark(f"m{i}", "trial", i, 1.0) for i in range(3)]
    chart = scatter_chart(marks, x_name="fusion", y_name="gain", columns=columns)
    found = places(chart)
    assert found["m1"][0] - found["m0"][0] == pytest.approx(found["m2"][0] - found["m1"][0])
    texts = [text.text or "" for text in ElementTree.fromstring(chart).findall("text")]
    assert {"temporal", "<b>"} <= set(texts)
    assert sum(text.endswith("…") for text in texts) == 1
    # What is cut short under the axis is whole where a dot says it.
    assert f"fusion {columns[2].replace('<', '&lt;')}: gain 1.00" in chart


def test_bars_reach_as_far_as_the_spread_and_stay_in_the_chart() -> None:
    marks = [Mark("a", "fused", 1.0, 2.0, 0.5), Mark("b", "trial", 2.0, 1.0)]
    chart = scatter_chart(marks, x_name="s", y_name="dB", digits=1)
    root = ElementTree.fromstring(chart)
    (bar,) = (line for line in root.findall("line") if "bar" in line.get("class", "").split())
    ends = sorted(float(bar.get(name, 0)) for name in ("y1", "y2"))
    found = places(chart)
    half_a_db = (found["b"][1] - found["a"][1]) / 2
    assert ends == pytest.approx([found["a"][1] - half_a_db, found["a"][1] + half_a_db], abs=0.2)
    assert ends[0] >= 0
    assert "a, s 1: dB 2.0 ± 0.5" in chart


def test_a_front_is_a_staircase_through_its_points() -> None:
    front = [(1.0, 0.0), (2.0, 1.0)]
    marks = [Mark(f"m{x:g}", "trial", x, y) for x, y in front]
    chart = scatter_chart(marks, x_name="s", y_name="dB", front=front)
    (path,) = ElementTree.fromstring(chart).findall("polyline")
    corners = [tuple(map(float, p.split(","))) for p in path.get("points", "").split()]
    found = places(chart)
    assert corners[0] == found["m1"]
    assert corners[1] == (found["m2"][0], found["m1"][1])
    assert corners[2] == found["m2"]


def test_a_response_is_drawn_over_its_levels_beside_what_it_is_held_against() -> None:
    line = Line("model", "fused", ((-8.0, 24.0), (0.0, 26.0), (8.0, 22.0)))
    chart = line_chart(
        [line],
        [Reference("<base>", "baseline", 23.0)],
        x_name="steps",
        y_name="PSNR",
        levels=True,
    )
    root = ElementTree.fromstring(chart)
    titles = [circle[0].text for circle in root.findall("circle")]
    assert titles == [
        "model, steps \N{MINUS SIGN}8: 24.00",
        "model, steps 0: 26.00",
        "model, steps 8: 22.00",
    ]
    left, middle, right = (
        (float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.findall("circle")
    )
    assert middle[0] - left[0] == pytest.approx(right[0] - middle[0], abs=0.2)
    width = float(root.get("viewBox", "").split()[2])
    assert 40 < left[0] < 100 and width - 60 < right[0] < width
    (held,) = (
        line for line in root.findall("line") if "reference" in line.get("class", "").split()
    )
    assert held[0].text == "<base>: 23.00"
    assert float(held.get("y1", 0)) == pytest.approx((left[1] + right[1]) / 2, abs=0.2)


def test_bars_are_as_high_as_their_shares() -> None:
    root = ElementTree.fromstring(bar_chart([0.5, 0.25, 0.0], ["1", "2", "3+"], x_name="steps"))
    bars = root.findall("rect")
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2) and heights[2] == 0
    assert [bar[0].text for bar in bars] == ["1: 50.00%", "2: 25.00%", "3+: 0.00%"]
    ends = {float(bar.get("y", 0)) + float(bar.get("height", 0)) for bar in bars}
    assert max(ends) - min(ends) < 0.2
