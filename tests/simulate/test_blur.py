"""A frame's exposure agrees with its spikes and its sharp frame to the half step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.simulate.blur import ExposedFrame, expose_frames
from vrtspike.simulate.camera import SpikeCamera
from vrtspike.simulate.recording import SceneTask, build_scene, record_scene
from vrtspike.spikes.gray import luma
from vrtspike.spikes.reconstruct import tfp
from vrtspike.spikes.timeline import Timeline

SCENES = SceneSettings(frames=3, height=48, width=64)
TASK = SceneTask("train", 0)
STEPS, EXPOSURE, TARGET = 64, 56, 28


@pytest.fixture(scope="module")
def recorded() -> list[ExposedFrame]:
    """Return the frames of one scene."""
    return list(record_scene(TASK, SCENES, CameraSettings()))


def clock(times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Render light whose gray is the instant / 1000 everywhere."""
    return np.broadcast_to(times[:, None, None, None] / 1000, (len(times), 2, 8, 3)).astype("f4")


@pytest.mark.parametrize("timeline", [Timeline(64, (0, 56), 28), Timeline(40, (6, 31), 18)])
def test_times_agree_to_the_half_step(timeline: Timeline) -> None:
    """Light that tells the time: steps are sampled in their middle, the target at its border."""
    camera = SpikeCamera(2, 8, threshold=2.0, rng=np.random.default_rng(0))
    seen: list[float] = []
    expose, camera_sees = camera.expose, seen.extend

    def watched(gray: NDArray[np.float32]) -> NDArray[np.bool_]:
        camera_sees((gray[:, 0, 0] * 1000).tolist())
        return expose(gray)

    camera.expose = watched  # type: ignore[method-assign]
    frames = list(expose_frames(clock, camera, timeline, frames=3))
    np.testing.assert_allclose(seen, np.arange(3 * timeline.steps_per_frame) + 0.5, atol=1e-3)
    for i, frame in enumerate(frames):
        start = i * timeline.steps_per_frame
        middle = start + sum(timeline.exposure) / 2
        assert (frame.blurred == np.rint(0.255 * middle)).all()
        assert (frame.sharp == np.rint(0.255 * (start + timeline.target_step))).all()
        assert frame.spikes.shape == (timeline.steps_per_frame, 2, 8)


def test_the_sharp_frame_is_the_exact_instant(recorded: list[ExposedFrame]) -> None:
    scene, _ = build_scene(TASK, SCENES)
    instants = np.array([i * STEPS + TARGET for i in range(3)], np.float64)
    for frame, light in zip(recorded, scene.render(instants), strict=True):
        np.testing.assert_allclose(frame.sharp, light * 255, atol=0.502)


def test_the_blurred_frame_is_the_mean_over_the_exposure(recorded: list[ExposedFrame]) -> None:
    scene, _ = build_scene(TASK, SCENES)
    for i, frame in enumerate(recorded):
        light = scene.render(i * STEPS + np.arange(EXPOSURE) + 0.5)
        np.testing.assert_allclose(frame.blurred, light.mean(axis=0) * 255, atol=0.51)
        assert np.abs(frame.blurred.astype(float) - frame.sharp).mean() > 2, "it is blurred"


def test_the_spikes_of_the_exposure_average_to_the_blurred_frame(
    recorded: list[ExposedFrame],
) -> None:
    """Quantisation: a count of spikes is off by less than one, a rate by 1 / 56."""
    for frame in recorded:
        gray = luma(frame.blurred.astype(np.float32)) / 255
        image = tfp(frame.spikes[:EXPOSURE], threshold=2.0)
        assert np.abs(image - gray).max() < 2.0 / EXPOSURE + 0.004
        psnr = 10 * np.log10(1 / np.mean((image - gray) ** 2))
        assert psnr > 36.0, "uniform error within +-2/56 is 36.8 dB"


def test_a_coarser_spike_grid_sees_the_box_average() -> None:
    camera = CameraSettings(downscale=2)
    for frame in record_scene(TASK, SCENES, camera):
        assert frame.spikes.shape == (STEPS, 24, 32)
        gray = luma(frame.blurred.astype(np.float32)) / 255
        coarse = gray.reshape(24, 2, 32, 2).mean(axis=(1, 3))
        image = tfp(frame.spikes[:EXPOSURE], threshold=2.0)
        assert np.abs(image - coarse).max() < 2.0 / EXPOSURE + 0.004


def test_the_camera_runs_on_through_dead_time(recorded: list[ExposedFrame]) -> None:
    """The stream of all frames has no seam: totals over frames are off by one spike at most."""
    scene, _ = build_scene(TASK, SCENES)
    light = luma(scene.render(np.arange(3 * STEPS) + 0.5)).sum(axis=0)
    spikes = np.concatenate([frame.spikes for frame in recorded]).sum(axis=0)
    assert np.abs(2.0 * spikes - light).max() <= 2.001


def test_pieces_do_not_show(recorded: list[ExposedFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrtspike.simulate.blur.PIXELS_AT_ONCE", 48 * 64 * 5)
    for frame, again in zip(recorded, record_scene(TASK, SCENES, CameraSettings()), strict=True):
        np.testing.assert_array_equal(frame.sharp, again.sharp)
        assert np.abs(frame.blurred.astype(int) - again.blurred).max() <= 1
        assert (frame.spikes != again.spikes).mean() < 1e-3, "only float rounding"
