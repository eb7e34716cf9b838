"""Colour, encoding and resolution: spikes and blur of still light are what optics say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2xyz

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings, VideoSettings
from vrtspike.simulate.blur import ExposedFrame, expose_frame
from vrtspike.simulate.camera import build_camera
from vrtspike.simulate.recording import SceneTask, describe_scenes, record_scene
from vrtspike.simulate.video import (
    InterpolatedVideo,
    VideoSource,
    VideoTask,
    describe_video,
    record_video,
)
from vrtspike.spikes.gray import luma
from vrtspike.spikes.optics import build_optics
from vrtspike.spikes.reconstruct import tfp
from vrtspike.spikes.srgb import encode, linearise
from vrtspike.spikes.timeline import Timeline

STEPS = 2000
STILL = np.random.default_rng(0).uniform(0.05, 1.0, (8, 12, 3)).astype(np.float32)
FLICKER = np.random.default_rng(1).random((5, 8, 12, 3), np.float32)


def real_light(encoded: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the linear light of encoded values: the luminance that scikit-image gives a gray."""
    return np.asarray(rgb2xyz(np.repeat(encoded[..., None], 3, axis=-1).astype(np.float64))[..., 1])


def record(lights: NDArray[np.float32], **settings: object) -> ExposedFrame:
    """Expose light that cycles through frames, by the step, in a camera of these settings."""
    camera = CameraSettings.model_validate(settings)
    pixels = build_camera(camera, *lights.shape[1:3], np.random.default_rng(0))
    timeline = Timeline(STEPS, (0, STEPS), STEPS // 2)
    return expose_frame(
        lambda at: lights[at.astype(int) % len(lights)], pixels, timeline, 0, build_optics(camera)
    )


def test_the_transfer_function_is_srgb_and_its_inverse() -> None:
    encoded = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(linearise(encoded), real_light(encoded), atol=1e-5)
    np.testing.assert_allclose(encode(linearise(encoded)), encoded, atol=1e-5)
    assert linearise(encoded).dtype == encode(encoded).dtype == np.float32


def boxes(values: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Average squares of pixels, one by one."""
    height, width = values.shape[0] // factor, values.shape[1] // factor
    f = factor
    return np.array(
        [
            [values[y * f : y * f + f, x * f : x * f + f].mean() for x in range(width)]
            for y in range(height)
        ]
    )


@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize("light", ["gamma", "linear"])
def test_the_gray_rate_is_proportional_to_encoded_or_real_light(light: str, downscale: int) -> None:
    frame = record(STILL[None], light=light, downscale=downscale)
    gray = luma(STILL)
    seen = boxes(real_light(gray) if light == "linear" else gray.astype(np.float64), downscale)
    rate = frame.spikes.mean(axis=0)
    np.testing.assert_allclose(rate, seen / 2, atol=1.001 / STEPS)
    bright = seen > 0.2
    np.testing.assert_allclose(rate[bright], seen[bright] / 2, rtol=0.01)


@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize("light", ["gamma", "linear"])
def test_each_bayer_pixel_sees_its_channel(light: str, downscale: int) -> None:
    spikes = record(STILL[None], color="bayer", light=light, downscale=downscale).spikes
    assert spikes.shape == (STEPS, 8 // downscale, 12 // downscale)
    for y, row in enumerate(("RG", "GB")):
        for x, name in enumerate(row):
            channel = STILL[..., "RGB".index(name)]
            light_of = real_light(channel) if light == "linear" else channel.astype(np.float64)
            seen = boxes(light_of, downscale)[y::2, x::2]
            rate = spikes[:, y::2, x::2].mean(axis=0)
            np.testing.assert_allclose(rate, seen / 2, atol=1.001 / STEPS)


def test_linear_spikes_encode_to_the_frame() -> None:
    """As the optics say: encode(threshold * rate) compares with the gray of frames."""
    frame = record(STILL[None], light="linear")
    image = encode(tfp(frame.spikes, threshold=2.0).astype(np.float64))
    np.testing.assert_allclose(image, luma(frame.sharp.astype(np.float32)) / 255, atol=0.01)


@pytest.mark.parametrize("blur", ["gamma", "linear"])
def test_the_mean_is_of_encoded_values_or_of_real_light(blur: str) -> None:
    frame = record(FLICKER, blur=blur)
    expected = FLICKER.astype(np.float64).mean(axis=0)
    if blur == "linear":
        mean = real_light(FLICKER).mean(axis=0)
        expected = np.interp(mean, real_light(np.linspace(0, 1, 4097)), np.linspace(0, 1, 4097))
        assert (expected - FLICKER.mean(axis=0)).mean() > 0.03, "light spots weigh more"
    np.testing.assert_allclose(frame.blurred, expected * 255, atol=0.51)
    np.testing.assert_array_equal(frame.spikes, record(FLICKER).spikes)


CHANGES = {
    "threshold": 1.0,
    "downscale": 2,
    "color": "bayer",
    "light": "linear",
    "blur": "linear",
    "noise": 0.1,
    "dark_rate": 0.1,
    "refractory_steps": 2,
    "saturation": 0.3,
    "hot_pixels": 0.1,
    "dead_pixels": 0.1,
}


def test_every_setting_reaches_what_is_recorded_of_scenes_and_of_video(tmp_path: Path) -> None:
    """One by one they change the spikes, or the blurred frame; `rate_hz` only names the step."""
    assert CHANGES.keys() == CameraSettings.model_fields.keys() - {"rate_hz"}
    for i, image in enumerate(np.rint(FLICKER * 255).astype(np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    scenes = SceneSettings(frames=1, height=16, width=24)
    video = VideoSettings(frames=1, source_frames=2)
    source = VideoSource(tmp_path, 5, ((0, 5),), 8, 12, None)

    def recorded(camera: CameraSettings) -> list[ExposedFrame]:
        light, info = InterpolatedVideo(tmp_path), describe_video(source, video, camera)
        return [
            *record_scene(SceneTask("train", 0), scenes, camera),
            *record_video(VideoTask("train", 0, 0), light, info, video, camera),
        ]

    usual = recorded(CameraSettings())
    for name, value in CHANGES.items():
        for frame, other in zip(
            usual, recorded(CameraSettings.model_validate({name: value})), strict=True
        ):
            assert np.array_equal(frame.spikes, other.spikes) == (name == "blur"), name
            assert np.array_equal(frame.blurred, other.blurred) == (name != "blur"), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, '"camera": {"downscale": 1, "noise": 0.0, "dark_rate": 0.0}}'),
        ({"threshold": 1.0}, '"camera": {"downscale": 1, "noise": 0.0, "dark_rate": 0.0}}'),
        ({"color": "bayer"}, '"color": "bayer"'),
        ({"light": "linear", "hot_pixels": 0.1}, '"light": "linear"'),
        ({"light": "linear", "hot_pixels": 0.1}, '"hot_pixels": 0.1'),
    ],
)
def test_a_dataset_says_what_is_unusual_about_its_camera(
    changes: dict[str, object], said: str
) -> None:
    """And else what it always said, so that folders written before are continued."""
    camera = CameraSettings.model_validate(changes)
    source = VideoSource(Path("a.mp4"), 100, ((0, 100),), 16, 16, 25.0)
    for info in (
        describe_scenes(SceneSettings(), camera),
        describe_video(source, VideoSettings(), camera),
    ):
        assert said in info.source
    assert "video a.mp4 of 100 frames, declared 25 fps, taken as 150 fps, flow inter" in info.source
    linear = describe_video(source, VideoSettings(interpolation="linear"), camera).source
    assert "linear interpolation" in linear
