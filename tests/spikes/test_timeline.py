"""The clock of frames and steps, and finding out that it is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from vrtspike.errors import ConfigError
from vrtspike.spikes.timeline import ShiftFit, Timeline, fit_shift


@pytest.mark.parametrize("exposure", [(0, 0), (5, 3), (-1, 4), (0, 65)])
def test_exposures_that_leave_the_frame_are_refused(exposure: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="exposure"):
        Timeline(64, exposure, 2)


def test_targets_outside_the_exposure_are_refused() -> None:
    with pytest.raises(ConfigError, match="target"):
        Timeline(64, (0, 56), 57)


def test_a_reversal_turns_exposure_and_target_round_and_twice_is_none() -> None:
    assert Timeline(64, (0, 56), 28).reversed() == Timeline(64, (8, 64), 36)
    assert Timeline(88, (0, 88), 40).reversed() == Timeline(88, (0, 88), 48)
    for timeline in (Timeline(9, (2, 7), 2), Timeline(9, (0, 9), 9), Timeline(10, (3, 8), 5)):
        back = timeline.reversed()
        # Step s of the frame is step 9 - s (10 - s) - 1 backwards; borders keep their distance.
        steps = set(range(*timeline.exposure))
        assert {timeline.steps_per_frame - 1 - s for s in range(*back.exposure)} == steps
        assert back.target_step - back.exposure[0] == timeline.exposure[1] - timeline.target_step
        assert back.reversed() == timeline


@pytest.mark.parametrize("offset", [-7, 0, 4])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_a_planted_shift_is_found_whatever_the_brightness(offset: int, gain: float) -> None:
    rng = np.random.default_rng(0)
    picture = np.kron(rng.random((1, 20)), np.ones((30, 5)))
    light = np.stack([picture[:, s // 2 : s // 2 + 40] for s in range(100)])
    charge = rng.random((1, 30, 40)) + np.cumsum(light / 2, axis=0)
    spikes = np.diff(np.floor(charge), axis=0, prepend=0) > 0
    gray = gain * light[40 + offset : 60 + offset].mean(axis=0)
    fit = fit_shift(spikes, gray, window=(40, 60), threshold=2.0, reach=16)
    assert abs(fit.best - offset) <= 1
    assert (fit.gain > 0.1) == (offset != 0)


def test_only_shifts_within_the_stream_are_tried() -> None:
    spikes = np.random.default_rng(0).random((20, 4, 4)) < 0.5
    fit = fit_shift(spikes, np.eye(4), window=(2, 17), threshold=2.0, reach=10)
    assert fit.shifts == (-2, -1, 0, 1, 2, 3)
    with pytest.raises(ConfigError, match="leaves"):
        fit_shift(spikes, np.eye(4), window=(2, 21), threshold=2.0, reach=10)


def test_fits_combine_over_their_common_shifts() -> None:
    both = ShiftFit.over([ShiftFit((-1, 0, 1), (3.0, 1.0, 4.0)), ShiftFit((0, 1), (7.0, 0.0))])
    assert both.shifts == (0, 1)
    assert both.errors == pytest.approx((5.0, 8.0**0.5))
    assert both.best == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("exposure", [(0, 64), (0, 56), (4, 60), (8, 64)])
def test_instants_are_evenly_spaced_over_all_frames(exposure: tuple[int, int], count: int) -> None:
    timelines = Timeline(64, exposure, sum(exposure) // 2).spread(count)
    steps = [64 * frame + timeline.target_step for frame in range(2) for timeline in timelines]
    assert np.diff(steps) == pytest.approx(64 / count, abs=1)
    assert np.mean(steps[:count]) == pytest.approx(sum(exposure) / 2, abs=1)
    assert {(timeline.steps_per_frame, timeline.exposure) for timeline in timelines} == {
        (64, exposure)
    }


def test_instants_stay_in_an_exposure_that_is_short() -> None:
    steps = [timeline.target_step for timeline in Timeline(64, (10, 30), 20).spread(5)]
    assert steps == [10, 15, 20, 25, 30]
    assert len(Timeline(64, (10, 30), 20).spread(21)) == 21
    with pytest.raises(ConfigError, match="22 instants of 20 steps, expected 1 to 21"):
        Timeline(64, (10, 30), 20).spread(22)


def test_one_instant_is_the_target_wherever_it_is() -> None:
    timeline = Timeline(88, (0, 88), 40)
    assert timeline.spread(1) == (timeline,)
    with pytest.raises(ConfigError, match="0 instants"):
        timeline.spread(0)
