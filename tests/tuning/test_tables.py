"""What is written of a sweep says what its rows say, and can be read back."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.sweeps import config_of, cost_sweep, row, spikes_sweep
from vrtspike.config.loader import change, load_config
from vrtspike.storage.folder import Folder
from vrtspike.tuning.summary import Summary
from vrtspike.tuning.tables import best_config, ranked, trial_table, verdict, write_results


def written(tmp_path: Path, summary: Summary) -> tuple[dict[str, Any], list[dict[str, str]]]:
    write_results(Folder.at(tmp_path), summary)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "results.json").read_text()
    lines = (tmp_path / "results.csv").read_text().splitlines()
    return json.loads(text, parse_constant=refuse), list(csv.DictReader(lines))


def test_gains_and_their_spread_are_those_of_the_rows(tmp_path: Path) -> None:
    results, lines = written(tmp_path, spikes_sweep())
    assert (results["complete"], results["missing"], results["metric"]) == (True, None, "psnr")
    (final,) = results["finals"]
    assert final == results["best"]
    assert final["settings"] == {"model.spike.heads": 2, "train.lr": 2e-3}
    assert final["seeds"] == [0, 1]
    assert final["psnr"] == pytest.approx((28.0 + 28.4) / 2)
    # The baseline that is trained alike, not the sweep's own.
    assert final["baseline"]["psnr"] == pytest.approx(26.6)
    assert final["gain"] == pytest.approx(1.6)
    # Variances 0.08 and 0.02, of two runs each.
    assert final["spread"] == pytest.approx(math.sqrt(0.08 / 2 + 0.02 / 2))
    other = next(trial for trial in results["trials"] if trial["name"] == "trial-003")
    # Over the sweep's own baseline; as a single run it varies as much as that.
    assert other["gain"] == pytest.approx(27.0 - 26.1)
    assert other["gain_spread"] == pytest.approx(math.sqrt(0.02 + 0.02 / 2))
    line = next(line for line in lines if line["name"] == "trial-003")
    assert float(line["gain"]) == pytest.approx(0.9)
    assert (line["model.spike.heads"], line["train.lr"]) == ("1", "0.0005")


def test_every_trial_is_one_line_and_one_entry_with_the_same_facts(tmp_path: Path) -> None:
    summary = spikes_sweep()
    results, lines = written(tmp_path, summary)
    names = [found.trial.name for found in summary.rows]
    assert [line["name"] for line in lines] == names
    assert [trial["name"] for trial in results["trials"]] == names
    for line, trial in zip(lines, results["trials"], strict=True):
        for key, value in trial.items():
            if key == "settings":
                known = {k: line[k] for k in summary.config.sweep.space}  # type: ignore[union-attr]
                swept = {k: str(v) for k, v in value.items() if k in known}
                assert {k: v for k, v in known.items() if v} == swept
            elif isinstance(value, float):
                assert float(line[key]) == pytest.approx(value, rel=1e-5)
            elif value is None:
                assert line[key] == ""
            else:
                assert line[key].lower() == " ".join(str(value).split()).lower()
    assert [trial["stopped_early"] for trial in results["trials"]].count(True) == 1
    stopped = next(trial for trial in results["trials"] if trial["state"] == "stopped")
    # Validation at step 4 over the baseline's at step 4.
    assert (stopped["gain"], stopped["val_gain"]) == (None, pytest.approx(1.0))


def test_a_finished_line_does_not_change_when_others_follow(tmp_path: Path) -> None:
    whole = spikes_sweep()
    _, after = written(tmp_path, whole)
    part = replace(whole, rows=tuple(r for r in whole.rows if r.trial.arm != "finalist"))
    _, before = written(tmp_path, part)
    assert before == [line for line in after if line["arm"] != "finalist"]


def test_the_best_configuration_trains_as_it_is(tmp_path: Path) -> None:
    summary = spikes_sweep()
    written(tmp_path, summary)
    found = load_config(tmp_path / "best.yaml")
    assert found.sweep is None
    assert (found.model.spike.heads, found.train.lr) == (2, 2e-3)
    # All else is as in the sweep.
    same = {"model.spike.heads": 2, "train.lr": 2e-3, "sweep": None, "run.name": "heads-best"}
    assert found == change(summary.config, same) == best_config(summary)


def test_without_a_best_there_is_no_best_configuration(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("of an earlier state\n")
    results, lines = written(tmp_path, Summary(config_of({"train.lr": {"grid": [1]}}), (), {}, 3))
    assert not (tmp_path / "best.yaml").exists()
    assert (results["best"], results["finals"], results["trials"], lines) == (None, [], [], [])
    assert not results["complete"]
    assert "train.lr" in (tmp_path / "results.csv").read_text()


def test_the_table_has_baselines_on_top_and_then_the_best_first() -> None:
    summary = spikes_sweep()
    names = [found.trial.name for found in ranked(summary)]
    assert all(name.startswith("baseline") for name in names[:4])
    assert names[4:] == ["trial-000", "trial-000-seed1", "trial-003", "trial-001", "trial-002"]
    headings, rows = trial_table(summary)
    table = {cells[0]: dict(zip(headings, cells, strict=True)) for cells in rows}
    assert table["trial-003"]["gain"] == "+0.90 ± 0.17"
    assert table["trial-003"]["settings"] == "model.spike.heads=1 train.lr=0.0005"
    assert table["trial-001"]["state"] == "stopped at 4"
    assert table["trial-001"]["val gain"] == "+1.00"
    assert table["trial-001"]["gain"] == table["baseline-seed0"]["gain"] == ""
    assert table["trial-002"]["state"] == "failed: CUDA out of memory, on <b>rank 0</b> and so on"
    assert "LPIPS" not in headings
    assert verdict(summary) == (
        "best: model.spike.heads=2 train.lr=0.002: 28.20 dB (mean of 2 seeds), "
        "+1.60 ± 0.22 dB over the baseline"
    )


def test_lpips_is_shown_when_it_was_computed() -> None:
    summary = spikes_sweep()
    scored = replace(summary, rows=(*summary.rows[:-1], replace(summary.rows[-1], lpips=0.125)))
    headings, rows = trial_table(scored)
    assert rows[5][headings.index("LPIPS")] == "0.1250"


def test_of_a_sweep_over_cost_the_cheapest_with_equal_losses_is_best(tmp_path: Path) -> None:
    summary = cost_sweep()
    results, lines = written(tmp_path, summary)
    assert results["best"]["settings"] == {"model.spike.chunk_size": 8}
    assert [line["loss_equal"] for line in lines] == ["", "true", "true", "false"]
    assert float(lines[2]["loss_difference"]) == pytest.approx(1e-4)
    assert [line["model.spike.chunk_size"] for line in lines] == ["", "null", "8", "16"]
    assert {line["gain"] + line["val_gain"] for line in lines} == {""}
    headings, rows = trial_table(summary)
    # The unequal one is the cheapest, and last all the same.
    assert [cells[0] for cells in rows][1:] == [
        "trial-001",
        "trial-000",
        "trial-002",
    ]
    assert "gain" not in headings
    assert [cells[headings.index("loss")] for cells in rows] == [*("", "equal", "equal", "differs")]
    assert "0.8 s/step (0.80 of the first trial's), 1.5 GB (0.75" in verdict(summary)


def test_losses_that_nobody_recorded_are_not_equal_and_not_infinite(tmp_path: Path) -> None:
    results, lines = written(tmp_path, replace(cost_sweep(), curves={}))
    assert [trial["loss_difference"] for trial in results["trials"]] == [None] * 4
    assert (results["best"], lines[1]["loss_equal"]) == (None, "false")


def test_a_trial_that_only_failed_is_a_row(tmp_path: Path) -> None:
    config = config_of({"train.lr": {"grid": [1e-3]}})
    failed = row("trial-000", {"train.lr": 1e-3}, state="failed", error="a \ud800 name")
    results, lines = written(tmp_path, Summary(config, (failed,), {}, 2))
    assert results["missing"] == "there is no result of the baseline"
    assert (lines[0]["state"], lines[0]["error"]) == ("failed", "a \\ud800 name")
    assert "there is no best" in verdict(Summary(config, (failed,), {}, 2))
