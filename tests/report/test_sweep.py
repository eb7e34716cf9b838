"""The report of a sweep is one page that shows every trial, at any state of the sweep."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.test_evaluation_page import Page
from tests.tuning.sweeps import SPACE, config_of, cost_sweep, row, spikes_sweep
from vrtspike.config.loader import change
from vrtspike.evaluation.results import Panel, Score
from vrtspike.storage.folder import Folder
from vrtspike.tuning.report import write_report
from vrtspike.tuning.summary import Summary


def panel() -> Panel:
    rng = np.random.default_rng(0)
    names = ("blurred", "baseline", "fused", "sharp")
    images = {name: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for name in names}
    return Panel("street", "000001", images, {name: Score(25.0, 0.8) for name in names[:3]})


def write(tmp_path: Path, summary: Summary, *panels: Panel) -> str:
    write_report(Folder.at(tmp_path), summary, panels, {"device": "cpu, <b>"})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\((?!data:)", text)
    assert text.count("<script>") == 1
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return text


def marks(text: str) -> list[str]:
    return re.findall(r"<circle[^>]*><title>([^<]*)</title>", text)


def section(text: str, heading: str) -> str:
    return text.split(f"<h2>{heading}", 1)[1].split("</section>", 1)[0]


def test_every_trial_is_in_the_table_with_its_figures(tmp_path: Path) -> None:
    summary = spikes_sweep()
    text = write(tmp_path, summary, panel())
    rows = {cells[0]: cells[1:] for cells in Page(text).rows}
    assert {found.trial.name for found in summary.rows} <= set(rows)
    assert rows["trial-000"] == [
        "model.spike.heads=2 train.lr=0.002",
        *("27.00", "+2.00", "28.00", "0.9000", "+1.90 ± 0.17"),
        *("10", "1", "1.5", "0.7", "1.5", "done"),
    ]
    assert rows["trial-001"][-1] == "stopped at 4"
    assert rows["trial-002"][-1].startswith("failed: CUDA out of memory, on <b>rank 0</b>")
    assert rows["model.spike.heads=2 train.lr=0.002"] == [
        *("0, 1", "28.20", "+1.60 ± 0.22"),
        "train.lr=0.002 model.fusion=none, seeds 0, 1: 26.60 dB",
    ]
    assert "is incomplete" not in text


def test_the_tiles_say_gain_cost_and_how_trials_ended(tmp_path: Path) -> None:
    text = write(tmp_path, spikes_sweep())
    found = re.findall(r'class="value">([^<]*)<small>([^<]*)</small></p><p>([^<]*)<', text)
    assert [(value, unit) for value, unit, _ in found] == [
        ("+1.60", "± 0.22"),
        ("28.20", "dB"),
        ("1.50", "×"),  # mean of 0.7 and 0.8 over 0.5 seconds
        ("1.50", "×"),
        ("7", "of 9"),
    ]
    assert found[1][2].endswith("baseline 26.60")
    assert found[-1][2] == "trials done, 1 stopped early, 1 failed"


def test_gains_stand_against_costs_with_their_front(tmp_path: Path) -> None:
    text = section(write(tmp_path, spikes_sweep()), "Gain against cost")
    times = text.split("GB of a worker")[0]
    assert marks(times) == [
        "trial-000 (model.spike.heads=2 train.lr=0.002), seconds of a step 0.75: "
        "gain (dB) 2.10 ± 0.22",
        "trial-003 (model.spike.heads=1 train.lr=0.0005), seconds of a step 0.6: "
        "gain (dB) 0.90 ± 0.17",
        "baseline, seconds of a step 0.5: gain (dB) 0.00",
    ]
    (path,) = re.findall(r'class="front" points="([^"]*)"', times)
    # Three points, each better and dearer: three corners, and one between each two.
    assert len(path.split()) == 5


def test_learning_curves_hold_every_trial_that_was_validated(tmp_path: Path) -> None:
    text = section(write(tmp_path, spikes_sweep()), "Learning curves")
    styles = re.findall(r'class="curve series-(\w+)"', text)
    assert styles == ["stopped", "baseline", "fused"]
    assert len(marks(text)) == 5


def test_each_setting_has_its_effect(tmp_path: Path) -> None:
    text = section(write(tmp_path, spikes_sweep()), "Effect of each setting")
    assert "gain over the baseline (dB)" in text
    heads, lr = text.split("<h3>")[1:]
    # Two trials that are done and one that was cut short, which shows its validation's gain.
    assert len(marks(heads)) == len(marks(lr)) == 3
    legend = re.findall(r"</i>([^<]*)<", text)
    assert legend == ["best combination", "other trials", "cut short or failed"]
    assert any("trial-001" in mark and mark.endswith(" 1.00") for mark in marks(heads))
    assert {">0.0001<", ">0.001<", ">0.01<"} & set(re.findall(r">[^<]*<", lr))


def test_pictures_compare_baseline_and_best(tmp_path: Path) -> None:
    text = write(tmp_path, spikes_sweep(), panel())
    assert "Best against baseline" in text
    assert text.count("data:image/png;base64,") == 4 + 3
    assert "Best against baseline" not in write(tmp_path, spikes_sweep())


def test_a_sweep_without_its_baseline_is_marked_and_still_shown(tmp_path: Path) -> None:
    whole = spikes_sweep()
    part = replace(whole, rows=tuple(r for r in whole.rows if r.trial.arm == "search"))
    text = write(tmp_path, part)
    assert "There is no result of the baseline" in section(text, "This sweep is incomplete")
    assert "validation PSNR (dB)" in section(text, "Effect of each setting")
    assert "Gain against cost" not in text
    assert "no baseline as yet" in text
    # Nothing is left to do where the baseline failed.
    assert "The same command" in text
    assert "The same command" not in write(tmp_path, replace(part, expected=len(part.rows)))


@pytest.mark.parametrize("count", range(len(spikes_sweep().rows)))
def test_the_report_can_be_written_after_every_trial(count: int, tmp_path: Path) -> None:
    whole = spikes_sweep()
    for rows in (whole.rows[:count], whole.rows[len(whole.rows) - count :]):
        names = {found.trial.name for found in rows}
        curves = {name: found for name, found in whole.curves.items() if name in names}
        text = write(tmp_path, Summary(whole.config, rows, curves, 9))
        assert names <= {cells[0] for cells in Page(text).rows}
        assert "This sweep is incomplete" in text


@pytest.mark.parametrize("count", range(5))
def test_a_sweep_over_cost_shows_costs_and_no_gains(count: int, tmp_path: Path) -> None:
    whole = cost_sweep()
    text = write(tmp_path, replace(whole, rows=whole.rows[:count]))
    assert "Gain against cost" not in text
    assert "Learning curves" not in text
    if count == 4:
        rows = {cells[0]: cells[1:] for cells in Page(text).rows}
        assert rows["trial-001"][1:] == [
            *("10", "1", "1.5", "0.8", "1.5", "1.0e-04", "equal", "done")
        ]
        assert rows["trial-002"][-2] == "differs"
        found = marks(section(text, "Costs"))
        assert "trial-001, model.spike.chunk_size=8, step time: -20.00" in found
        assert "trial-001, model.spike.chunk_size=8, memory: -25.00" in found
        assert ">2<small>of 3</small></p><p>trials with equal losses" in text
        # Of the two equal trials the second is better in both; the third is none to choose.
        (corners,) = re.findall(r'class="front" points="([^"]*)"', text)
        circles = re.findall(r'cx="([^"]*)" cy="([^"]*)" r="5.5"><title>trial-001 ', text)
        assert corners == ",".join(circles[0])


def test_a_sweep_at_equal_time_says_so_and_draws_curves_over_its_shares(tmp_path: Path) -> None:
    summary = spikes_sweep()
    by_steps = write(tmp_path, summary)
    assert "9 trials of 10 steps" in by_steps and "step 10: 25.00" in by_steps
    config = change(summary.config, {"train.minutes": 3, "train.clock": "cpu"})
    text = write(tmp_path, replace(summary, config=config))
    assert "9 trials of 3 CPU minutes" in text
    assert "measures its first steps and takes as many as fit" in text
    # Step 4 of 10.
    assert "% of 3 CPU minutes 40: 24.00" in section(text, "Learning curves")


def test_words_from_outside_cannot_change_the_page(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    config = config_of({"loss.weights_dir": {"choice": [bad, '"x']}}, search="random", trials=2)
    config = config.model_copy(update={"run": config.run.model_copy(update={"name": bad})})
    rows = (
        row("baseline-seed0", {"model.fusion": "none"}, psnr=20.0, val_psnr=20.0, step_s=1.0),
        row("trial-000", {"loss.weights_dir": bad}, psnr=20.0, val_psnr=20.0, step_s=1.0),
        row("trial-001", {"loss.weights_dir": '"x'}, state="failed", error="<img src=x> \udcff"),
    )
    text = write(tmp_path, Summary(config, rows, {}, 3))
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "cpu, &lt;b&gt;" in text


def test_a_space_of_one_value_and_equal_trials_is_drawn(tmp_path: Path) -> None:
    config = config_of(SPACE, search="random", trials=1)
    rows = (
        row("baseline-seed0", {"model.fusion": "none"}, psnr=20.0, step_s=1.0, memory_gb=1.0),
        row(
            "trial-000",
            {"model.spike.heads": 1, "train.lr": 1e-3},
            psnr=20.0,
            val_psnr=20.0,
            step_s=1.0,
            memory_gb=1.0,
        ),
    )
    text = write(tmp_path, Summary(config, rows, {}, 2))
    assert len(marks(section(text, "Gain against cost"))) == 4


@pytest.mark.parametrize("sweep", [spikes_sweep, cost_sweep])
def test_a_browser_draws_all_of_it(sweep: object, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    assert callable(sweep)
    write(tmp_path, sweep(), panel())
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    found = subprocess.run(
        [
            browser,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (tmp_path / "report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    assert b"How this was made" in found.stdout
