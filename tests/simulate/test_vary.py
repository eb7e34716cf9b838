"""Sequences whose cameras differ: within the ranges, and each says what holds of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from vrtspike.data.clips import read_frames, read_spikes
from vrtspike.data.dataset import open_dataset
from vrtspike.data.info import SEQUENCE_FILE
from vrtspike.data.validate import validate
from vrtspike.scene_settings import CameraSettings, SceneSettings, VarySettings
from vrtspike.simulate.recording import (
    SceneTask,
    build_scene,
    record_scene,
    recording_of,
    write_scenes,
)
from vrtspike.simulate.vary import same_for_all

VARY = VarySettings(
    threshold=(1.0, 2.0), noise=(0.0, 0.05), steps_per_frame=(24, 40), exposure=(0.4, 0.8)
)
SCENES = SceneSettings(
    sequences={"train": 3}, frames=2, height=32, width=32, steps_per_frame=32, exposure_steps=28
)
VARIED = SCENES.model_copy(update={"vary": VARY})
CAMERA = CameraSettings(rate_hz=960.0)


def test_draws_stay_within_their_ranges_and_reach_their_ends() -> None:
    drawn = [recording_of(SceneTask("train", i), VARIED, CAMERA) for i in range(300)]
    for values, (low, high) in (
        ([r.camera.threshold for r in drawn], (1.0, 2.0)),
        ([r.camera.noise for r in drawn], (0.0, 0.05)),
        ([float(r.timeline.steps_per_frame) for r in drawn], (24, 40)),
        ([r.timeline.exposure_steps / r.timeline.steps_per_frame for r in drawn], (0.38, 0.82)),
    ):
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert {r.timeline.exposure[0] for r in drawn} >= {0, 1, 5, 10}
    middles = [2 * r.timeline.target_step - sum(r.timeline.exposure) for r in drawn]
    assert {abs(twice) for twice in middles} <= {0, 1}, "targets are in the middle"


def test_frames_keep_their_rate_and_things_their_speed() -> None:
    for index in range(20):
        task = SceneTask("train", index)
        drawn = recording_of(task, VARIED, CAMERA)
        assert drawn.camera.rate_hz / drawn.timeline.steps_per_frame == pytest.approx(30.0)
        share = drawn.timeline.exposure_steps / drawn.timeline.steps_per_frame
        assert np.divide(drawn.motion, share) == pytest.approx(np.divide(SCENES.motion, 28 / 32))


def test_what_does_not_vary_is_the_same_for_all() -> None:
    usual = same_for_all(SCENES, CAMERA)
    nothing = SCENES.model_copy(update={"vary": VarySettings()})
    for index in range(3):
        assert recording_of(SceneTask("train", index), SCENES, CAMERA) == usual
        drawn = recording_of(SceneTask("train", index), nothing, CAMERA)
        assert drawn.timeline == usual.timeline and drawn.camera == usual.camera
        assert drawn.motion == pytest.approx(usual.motion)


def test_each_sequence_says_what_holds_of_it(tmp_path: Path) -> None:
    write_scenes(VARIED, CAMERA, tmp_path / "set")
    assert validate(tmp_path / "set") == []
    for index, clip in enumerate(open_dataset(tmp_path / "set").clips("train")):
        task = SceneTask("train", index)
        drawn = recording_of(task, VARIED, CAMERA)
        assert clip.info.timeline == drawn.timeline
        assert clip.info.camera.threshold == drawn.camera.threshold
        assert clip.info.camera.rate_hz == drawn.camera.rate_hz
        frames = list(record_scene(task, VARIED, CAMERA))
        np.testing.assert_array_equal(read_spikes(clip), [f.spikes for f in frames])
        np.testing.assert_array_equal(read_frames(clip, "blurred"), [f.blurred for f in frames])


def test_where_nothing_varies_no_sequence_says_anything(tmp_path: Path) -> None:
    write_scenes(SCENES, CAMERA, tmp_path / "set")
    assert not list((tmp_path / "set").rglob(SEQUENCE_FILE))


def test_exposures_of_varied_scenes_are_those_of_their_light() -> None:
    task = SceneTask("train", 1)
    drawn = recording_of(task, VARIED, CAMERA)
    timed = VARIED.model_copy(
        update={
            "steps_per_frame": drawn.timeline.steps_per_frame,
            "exposure_steps": drawn.timeline.exposure_steps,
        }
    )
    scene, _ = build_scene(task, timed, drawn.motion)
    first = next(iter(record_scene(task, VARIED, CAMERA)))
    instants = np.arange(*drawn.timeline.exposure, dtype=np.float64) + 0.5
    mean = scene.render(instants).mean(axis=0)
    np.testing.assert_allclose(first.blurred / 255, mean, atol=0.51 / 255)


@pytest.mark.parametrize(
    "ranges", [{"threshold": (2.0, 1.0)}, {"exposure": (0.0, 0.5)}, {"threshold": (0.0, 1.0)}]
)
def test_ranges_that_are_none_are_refused(ranges: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValidationError):
        VarySettings(**ranges)
