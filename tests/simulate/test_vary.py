"""Sequences whose cameras differ: within the ranges, and each says what holds of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tests.datasets.findings_of import validate
from tests.simulate.scene_folder import write_scenes
from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings, VarySettings
from vrtspike.datasets.clip import read_frames, read_spikes, read_spikes_around
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.info import SEQUENCE_FILE
from vrtspike.simulate.recording import SceneTask, build_scene, record_scene, recording_of
from vrtspike.simulate.vary import same_for_all
from vrtspike.spikes.gray import luma
from vrtspike.spikes.reconstruct import tfi
from vrtspike.spikes.timeline import Timeline

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


def test_the_target_lies_anywhere_in_the_exposure_and_leaves_the_other_draws() -> None:
    def shares(low: float, high: float) -> list[float]:
        vary = VARY.model_copy(update={"target": (low, high)})
        scenes = SCENES.model_copy(update={"vary": vary})
        found = []
        for index in range(300):
            task = SceneTask("train", index)
            drawn, usual = recording_of(task, scenes, CAMERA), recording_of(task, VARIED, CAMERA)
            assert (drawn.camera, drawn.motion) == (usual.camera, usual.motion)
            assert drawn.timeline.exposure == usual.timeline.exposure
            if (low, high) == (0.5, 0.5):
                assert drawn == usual, "the middle, of odd exposures too"
            start = drawn.timeline.exposure[0]
            found.append((drawn.timeline.target_step - start) / drawn.timeline.exposure_steps)
        return found

    assert set(shares(0.0, 0.0)) == {0.0} and set(shares(1.0, 1.0)) == {1.0}
    assert max(abs(share - 0.5) for share in shares(0.5, 0.5)) < 0.06
    anywhere = shares(0.0, 1.0)
    assert min(anywhere) == 0.0 and max(anywhere) == 1.0
    assert np.histogram(anywhere, 4, (0.0, 1.0))[0].min() > 45
    part = shares(0.25, 0.75)
    assert 0.2 < min(part) < 0.3 and 0.7 < max(part) < 0.8


def test_settings_from_before_draw_what_they_drew() -> None:
    drawn = [recording_of(SceneTask("train", index), VARIED, CAMERA) for index in range(3)]
    assert [r.timeline for r in drawn] == [
        Timeline(34, (1, 20), 10),
        Timeline(32, (7, 27), 17),
        Timeline(38, (13, 38), 25),
    ]
    assert [(r.camera.threshold, r.camera.noise) for r in drawn] == [
        (1.335, 0.0288),
        (1.376, 0.0012),
        (1.998, 0.0009),
    ]


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


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_sharp_frame_is_the_light_of_its_target(share: float, tmp_path: Path) -> None:
    """Written, read again, and beside controls: each instant is the one that sequences state."""
    vary = VarySettings(target=(share, share))
    scenes = SCENES.model_copy(
        update={"vary": vary, "frames": 4, "motion": (12.0, 12.0), "height": 64, "width": 64}
    )
    write_scenes(scenes, CameraSettings(threshold=1.0), tmp_path / "set")
    assert validate(tmp_path / "set") == []
    for index, clip in enumerate(open_dataset(tmp_path / "set").clips("train")):
        target = clip.info.timeline.target_step
        assert target == round(share * 28)
        scene, _ = build_scene(SceneTask("train", index), scenes, scenes.motion)
        light = scene.render([32.0 * frame + target for frame in range(4)])
        sharp = read_frames(clip, "sharp")
        np.testing.assert_allclose(sharp / 255, light, atol=0.51 / 255)
        stream, first = read_spikes_around(clip, 2, 16)
        off = {
            step: np.abs(tfi(stream, step=first + step, threshold=1.0) - luma(light[2])).mean()
            for step in (target, 14)
        }
        assert target == 14 or off[target] < off[14]


def test_a_target_that_is_stated_wrongly_is_found(tmp_path: Path) -> None:
    """Of sequences whose targets differ, one states that of another instant."""
    vary = VarySettings(target=(0.0, 1.0))
    scenes = SCENES.model_copy(update={"vary": vary, "frames": 4, "height": 64, "width": 64})
    write_scenes(scenes, CAMERA, tmp_path)
    assert validate(tmp_path) == []
    file = tmp_path / "train" / "train_0001" / SEQUENCE_FILE
    told = yaml.safe_load(file.read_text())
    right = int(told["target_step"])
    file.write_text(yaml.safe_dump(told | {"target_step": right + (12 if right < 14 else -12)}))
    (finding,) = validate(tmp_path)
    assert finding.kind == "target-shift" and finding.where.endswith("train_0001")


@pytest.mark.parametrize(
    "ranges",
    [
        {"threshold": (2.0, 1.0)},
        {"exposure": (0.0, 0.5)},
        {"threshold": (0.0, 1.0)},
        {"target": (0.5, 1.1)},
        {"target": (0.6, 0.4)},
    ],
)
def test_ranges_that_are_none_are_refused(ranges: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValidationError):
        VarySettings(**ranges)


def test_another_target_is_the_same_recording_at_another_instant(tmp_path: Path) -> None:
    """What an evaluation at several instants rests on: only the sharp frames are others."""
    found: dict[float, dict[str, bytes]] = {}
    for share in (0.0, 0.5, 1.0):
        vary = VarySettings(target=(share, share))
        root = tmp_path / f"{share}"
        write_scenes(SCENES.model_copy(update={"vary": vary}), CAMERA, root)
        (clip,) = open_dataset(root).clips("train")[:1]
        assert clip.info.timeline == Timeline(32, (0, 28), round(28 * share))
        found[share] = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.suffix in (".png", ".dat")
        }
    write_scenes(SCENES, CAMERA, tmp_path / "usual")
    for name, content in found[0.5].items():
        assert (tmp_path / "usual" / name).read_bytes() == content, "the middle is the usual one"
        for share in (0.0, 1.0):
            same = found[share][name] == content
            assert same == ("sharp" not in name), name
    assert {len(files) for files in found.values()} == {3 * (2 + 2 + 2)}
