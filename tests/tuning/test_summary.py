"""What rows say: gains by hand, the best by validation, what is left, and the front."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuning.sweeps import SPACE, config_of, cost_sweep, curve, row, spikes_sweep
from vrtspike.config.loader import change
from vrtspike.runs.metrics_log import MetricsLog
from vrtspike.storage.folder import Folder
from vrtspike.tuning.summary import Summary, front, gain_over, mean_of, read_summary
from vrtspike.tuning.trial_results import TRIALS, TrialResult, write_row

PLAIN = {"model.fusion": "none"}
BASE = row("baseline-seed0", PLAIN, psnr=26.0, val_psnr=25.0)
HEADS = {"model.spike.heads": {"grid": [1, 2, 4]}}


def runs(*psnr: float | None) -> list[TrialResult]:
    return [row(f"trial-{number:03d}", {}, psnr=value) for number, value in enumerate(psnr)]


def summary(*rows: TrialResult, expected: int | None = None, **curves: Any) -> Summary:
    named = {name.replace("_", "-"): records for name, records in curves.items()}
    return Summary(config_of(HEADS), rows, named, len(rows) if expected is None else expected)


def named(found: Summary, name: str) -> TrialResult:
    return next(row for row in found.rows if row.trial.name == name)


@pytest.mark.parametrize(
    ("ours", "theirs", "value", "spread"),
    [
        # Three against three: the standard error of a difference of means.
        ((28.0, 29.0, 30.0), (25.0, 25.5, 26.0), 3.5, math.sqrt(1 / 3 + 0.25 / 3)),
        # A single run is taken to vary as much as the repeated ones.
        ((28.0,), (25.0, 25.5, 26.0), 2.5, math.sqrt(0.25 / 1 + 0.25 / 3)),
        ((28.0, 30.0), (25.0,), 4.0, math.sqrt(2.0 / 2 + 2.0 / 1)),
        ((28.0,), (25.0,), 3.0, None),
        ((25.0, 25.0), (25.0, 25.0), 0.0, 0.0),
        ((None, 28.0), (25.0, None), 3.0, None),
    ],
)
def test_gain_by_hand(
    ours: tuple[float, ...], theirs: tuple[float, ...], value: float, spread: float | None
) -> None:
    found = gain_over(runs(*ours), runs(*theirs))
    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.spread == (None if spread is None else pytest.approx(spread))


def test_without_a_score_there_is_no_gain() -> None:
    assert gain_over(runs(28.0), []) is gain_over([], runs(25.0)) is None
    assert gain_over(runs(None), runs(25.0)) is gain_over(runs(28.0), runs(None)) is None


def test_the_spread_is_that_of_many_sweeps() -> None:
    generator = np.random.default_rng(0)
    found = [
        gain_over(runs(*generator.normal(28, 0.5, 3)), runs(*generator.normal(25, 0.5, 3)))
        for _ in range(400)
    ]
    values = [gain.value for gain in found if gain]
    squares = [gain.spread**2 for gain in found if gain and gain.spread]
    assert np.std(values) == pytest.approx(np.sqrt(np.mean(squares)), rel=0.1)


def test_a_finalists_gain_is_over_the_baseline_trained_alike() -> None:
    found = spikes_sweep()
    best = found.best
    assert best is not None and best.gain is not None
    assert best.gain.value == pytest.approx((28.0 + 28.4) / 2 - (26.5 + 26.7) / 2)
    assert best.gain.spread == pytest.approx(math.sqrt(0.08 / 2 + 0.02 / 2))
    gain = found.gain(named(found, "trial-000-seed1"))
    # In the table of trials all are compared with the same: the sweep's own.
    assert gain is not None and gain.value == pytest.approx(28.4 - 26.1)
    gain = found.gain(named(found, "trial-003"))
    assert gain is not None and gain.value == pytest.approx(27.0 - 26.1)
    assert gain.spread == pytest.approx(math.sqrt(0.02 + 0.02 / 2))
    assert found.gain(named(found, "baseline-seed0")) is None
    assert found.gain(named(found, "trial-001")) is None


def test_baselines_that_failed_are_no_baselines() -> None:
    broken = replace(BASE, state="failed", psnr=1.0)
    found = summary(broken, row("trial-000", {"model.spike.heads": 1}, psnr=27.0, val_psnr=26.0))
    assert found.gain(found.rows[1]) is None and found.baselines == []
    assert found.missing == "there is no result of the baseline" and found.failed == [broken]


def test_the_gain_of_a_trial_that_was_cut_short_is_at_its_last_step() -> None:
    found = spikes_sweep()
    gains = {row.trial.name: found.val_gain(row) for row in found.rows}
    assert gains["trial-001"] == pytest.approx(24.0 - 23.0)
    assert gains["trial-000"] == pytest.approx(27.0 - 25.0)
    assert gains["baseline-seed0"] is gains["trial-002"] is None
    # At step 8 the baseline has no number, at step 6 it was not validated.
    for share in (0.6, 0.8):
        assert found.val_gain(replace(named(found, "trial-001"), share=share)) is None


def test_a_trial_that_failed_before_it_was_validated_again_has_no_gain_there() -> None:
    failed = row("trial-000", {}, state="failed", steps=8, val_psnr=24.0)
    found = summary(
        BASE,
        failed,
        baseline_seed0=curve((4, 23.0), (8, 25.0)),
        trial_000=curve((4, 24.0)),
    )
    assert found.val_gain(failed) in (None, pytest.approx(1.0))


def test_the_best_is_chosen_by_validation_and_not_by_what_is_reported() -> None:
    found = summary(
        BASE,
        row("trial-000", {"model.spike.heads": 1}, psnr=29.0, val_psnr=26.0),
        row("trial-001", {"model.spike.heads": 2}, psnr=27.0, val_psnr=28.0),
        row("trial-002", {"model.spike.heads": 4}, psnr=30.0, val_psnr=27.0),
    )
    assert [final.settings["model.spike.heads"] for final in found.finals] == [2, 4, 1]
    assert found.best is not None and found.best.settings == {"model.spike.heads": 2}
    assert found.best.gain is not None and found.best.gain.value == pytest.approx(1.0)
    assert found.missing is None


def test_with_finalists_the_best_is_one_of_them_by_the_mean_over_seeds() -> None:
    one, two, four = ({"model.spike.heads": heads} for heads in (1, 2, 4))
    found = summary(
        BASE,
        row("trial-000", one, psnr=27.0, val_psnr=26.9),
        row("trial-001", two, psnr=27.0, val_psnr=27.0),
        row("trial-002", four, psnr=27.0, val_psnr=27.2),
        row("trial-001-seed1", two, 1, psnr=27.0, val_psnr=27.0),
        row("trial-002-seed1", four, 1, psnr=27.0, val_psnr=26.6),
        row("trial-002-seed2", four, 2, state="failed"),
    )
    assert [final.settings for final in found.finals] == [two, four]
    assert [len(final.rows) for final in found.finals] == [2, 2]
    assert [mean_of(final.rows, "val_psnr") for final in found.finals] == [
        27.0,
        pytest.approx(26.9),
    ]


def test_what_a_sweep_lacks() -> None:
    trial = row("trial-000", {"model.spike.heads": 1}, psnr=27.0, val_psnr=26.0)
    assert summary(trial).missing == "there is no result of the baseline"
    assert summary().missing == "there is no result of the baseline"
    assert summary(BASE, trial, expected=5).missing == "3 of 5 trials have not ended"
    assert summary(BASE, replace(trial, state="failed")).missing == "no trial came to its end"
    assert summary(BASE, replace(trial, state="stopped")).missing == "no trial came to its end"
    assert summary(BASE, trial).missing is None
    other = row("baseline-trial-000-seed0", PLAIN | {"train.lr": 1.0}, psnr=26.0)
    assert summary(other, trial).missing == "there is no result of the baseline"


def test_costs_rank_the_trials_whose_losses_are_equal() -> None:
    found = cost_sweep()
    assert found.loss_differences == {
        "trial-000": 0.0,
        "trial-001": pytest.approx(1e-4),
        "trial-002": pytest.approx(0.5),
    }
    assert [found.equal(row) for row in found.searched] == [True, True, False]
    costs = [final.rows[0].step_s for final in found.finals]
    assert costs == [0.6, 0.8, 1.0]
    assert found.best is not None and found.best.rows[0].trial.name == "trial-001"
    assert found.gain(found.rows[1]) is None and found.missing is None


def test_in_half_precision_more_is_rounding() -> None:
    half = change(cost_sweep().config, {"train.precision": "bfloat16"})
    for loss, equal in ((1.02, True), (1.04, False)):
        curves = dict(cost_sweep().curves) | {"trial-001": curve((4, 20.0), (10, 21.0), loss=loss)}
        for config, found in ((half, equal), (cost_sweep().config, False)):
            rows = cost_sweep().rows
            assert Summary(config, rows, curves, 4).equal(rows[2]) is found


def test_losses_that_are_not_there_are_not_equal() -> None:
    found = cost_sweep()
    bad = [record | {"loss": None} for record in curve((4, 20.0), (10, 21.0))]
    for records in ([], curve((5, 20.0)), bad, bad[:1] + curve((4, 20.0))[1:]):
        curves = dict(found.curves) | {"trial-001": records}
        again = replace(found, curves=curves)
        assert not again.equal(named(again, "trial-001"))
        assert again.best is not None and again.best.rows[0].trial.name == "trial-000"


def test_the_front_is_what_nothing_beats() -> None:
    generator = random.Random(0)
    for _ in range(50):
        points = {
            str(name): (float(generator.randrange(5)), float(generator.randrange(5)))
            for name in range(generator.randrange(12))
        }
        expected = []
        for name, (cost, gain) in points.items():
            beaten = False
            for other, (less, more) in points.items():
                no_worse = less <= cost and more >= gain
                beaten |= other != name and no_worse and (less < cost or more > gain)
            if not beaten:
                expected.append(name)
        assert front(points) == expected


def test_a_folder_is_read_in_the_order_of_arms_numbers_and_seeds(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    rows = [
        *(row(f"baseline-seed{seed}", PLAIN, seed, psnr=26.0) for seed in (9, 10, 11)),
        row("baseline-trial-001-seed9", PLAIN | {"train.lr": 1e-3}, 9, psnr=26.0),
        row("baseline-trial-001-seed10", PLAIN | {"train.lr": 1e-3}, 10, psnr=26.0),
        row("trial-000", {"model.spike.heads": 1}, 9, psnr=27.0),
        row("trial-001", {"model.spike.heads": 2}, 9, psnr=28.0),
        row("trial-1000", {"model.spike.heads": 2}, 9, psnr=28.0),
        row("trial-001-seed10", {"model.spike.heads": 2}, 10, psnr=28.0),
    ]
    for found in random.Random(0).sample(rows, len(rows)):
        write_row(folder, found)
    metrics_log = MetricsLog(folder.below(TRIALS).below("trial-000"), resumed=0, tensorboard=False)
    metrics_log.write("train", 1, loss=0.5, step_s=1.0)
    metrics_log.write("val", 2, psnr=25.0, ssim=0.5)
    metrics_log.close()
    summary = read_summary(config_of(SPACE, search="random", trials=3), folder, 12)
    assert [found.trial.name for found in summary.rows] == [found.trial.name for found in rows]
    assert summary.rows == tuple(rows) and summary.expected == 12
    assert [record["kind"] for record in summary.curves["trial-000"]] == ["train", "val"]
    assert summary.curves["trial-001"] == []


def test_the_first_baseline_is_that_of_the_first_seed(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    for seed in (9, 10):
        write_row(folder, row(f"baseline-seed{seed}", PLAIN, seed, psnr=26.0, val_psnr=25.0))
        metrics_log = MetricsLog(
            folder.below(TRIALS).below(f"baseline-seed{seed}"), resumed=0, tensorboard=False
        )
        metrics_log.write("val", 10, share=1.0, psnr=float(seed), ssim=0.5)
        metrics_log.close()
    write_row(folder, row("trial-000", {"model.spike.heads": 1}, 9, psnr=27.0, val_psnr=12.0))
    found = read_summary(change(config_of(HEADS), {"run.seed": 9}), folder, 3)
    assert found.val_gain(found.searched[0]) == pytest.approx(12.0 - 9.0)
