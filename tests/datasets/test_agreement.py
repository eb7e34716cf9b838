"""Spikes against frames: the noise of counting is known, so that chance is no finding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.layout_trees import WRITERS, Scene
from vrtspike.datasets.agreement import Agreement, measure_agreement
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.validate import check_dataset


def agreements(root: Path, layout: str, frames: int, speed: float) -> list[Agreement]:
    """Write a tree of a layout and measure its sequences over all of their frames."""
    tree = WRITERS[layout](root, frames=frames, scene=Scene(speed=speed, frame=(96, 128)))
    dataset = open_dataset(tree.root, tree.layout)
    clips = [dataset.clip(*key) for key in tree.sequences]
    return [measure_agreement(clip, range(len(clip.frames))) for clip in clips]


@pytest.mark.parametrize("layout", ["own", "spk_gopro", "s_sdm"])
def test_what_is_expected_is_what_is_measured(layout: str, tmp_path: Path) -> None:
    for found in agreements(tmp_path, layout, 4, 0.0):
        assert found.turns["as declared"] == pytest.approx(found.expected, abs=0.04)
        assert found.brightness == pytest.approx(1, abs=0.01)
        assert found.exposure_chance == found.target_chance == 1, "nothing but counting noise"


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("layout", ["own", "align", "spk_gopro", "s_sdm"])
def test_short_sequences_tell_the_time_too(layout: str, frames: int, tmp_path: Path) -> None:
    for found in agreements(tmp_path, layout, frames, 0.3):
        assert abs(found.exposure.best) <= 2
        shifts = found.exposure.shifts
        assert shifts == tuple(range(shifts[0], shifts[-1] + 1))
        assert shifts[0] <= 0 <= shifts[-1]
    tree = WRITERS[layout](tmp_path / "again", frames=frames, scene=Scene(speed=0.3))
    assert check_dataset(open_dataset(tree.root, tree.layout)).findings == ()


def test_frames_at_the_ends_leave_both_directions_open(tmp_path: Path) -> None:
    for found in agreements(tmp_path, "own", 2, 0.3):
        assert found.exposure.shifts[0] < -10
        assert found.exposure.shifts[-1] > 10


def test_facts_are_plain_numbers(tmp_path: Path) -> None:
    (first, _) = agreements(tmp_path, "own", 3, 0.3)
    facts = first.facts()
    assert facts["best_turn"] == "as declared"
    assert facts["exposure_best_offset_steps"] == first.exposure.best
    assert all(type(value) in (int, float, str) for value in facts.values())
    assert np.isfinite([v for v in facts.values() if not isinstance(v, str)]).all()
