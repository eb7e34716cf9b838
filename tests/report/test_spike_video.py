"""Animations hold the frames that the stream gives, whatever decodes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.report.spike_video import write_animation
from vrtspike.spikes.reconstruct import tfp
from vrtspike.spikes.stream import SpikeStream


def moving_bar(height: int = 33, width: int = 47) -> NDArray[np.bool_]:
    """Return 200 steps of a bright bar that moves over darker ground."""
    rng = np.random.default_rng(0)
    light = np.full((200, height, width), 0.2)
    for step in range(200):
        left = step * (width - 9) // 200
        light[step, :, left : left + 9] = 0.9
    return rng.random(light.shape) < light / 2


def decode(path: Path) -> tuple[list[NDArray[Any]], float]:
    """Return the gray frames and the seconds that they last, by Pillow or PyAV."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(video)]
            assert video.average_rate is not None
            return frames, len(frames) / float(video.average_rate)
    frames, seconds = [], 0.0
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            frames.append(np.asarray(image.convert("L")))
            seconds += image.info["duration"] / 1000
    return frames, seconds


@pytest.mark.parametrize(("name", "most"), [("a.gif", 0.0), ("an animation é.mp4", 4.0)])
@pytest.mark.parametrize("fps", [25.0, 30.0, 12.5])
def test_frames_are_the_spike_average_moving_on(
    tmp_path: Path, name: str, most: float, fps: float
) -> None:
    spikes = moving_bar()
    stream = SpikeStream.from_array(spikes, threshold=2.0)
    path = tmp_path / name
    assert write_animation(stream, path, window=24, stride=16, fps=fps) == 12
    frames, seconds = decode(path)
    assert len(frames) == 12
    assert seconds == pytest.approx(12 / fps, abs=0.006)
    for number, frame in enumerate(frames):
        start = number * 16
        exact = 255 * tfp(spikes[start : start + 24], threshold=2.0).clip(0, 1)
        assert np.abs(frame[:33, :47] - np.rint(exact)).mean() <= most, number
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_frames_are_made_one_at_a_time(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the last frames are computed, the first ones are in the file already."""
    sizes = []
    read = SpikeStream.__getitem__

    def watched(stream: SpikeStream, steps: slice) -> Any:
        assert steps.stop - steps.start <= 10
        sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
        return read(stream, steps)

    monkeypatch.setattr(SpikeStream, "__getitem__", watched)
    spikes = np.random.default_rng(0).random((2000, 64, 64)) < 0.4
    write_animation(SpikeStream.from_array(spikes), tmp_path / name, window=10, threshold=2.0)
    assert len(sizes) == 249
    assert sizes[200] > 0.3 * (tmp_path / name).stat().st_size


def test_what_cannot_be_animated_is_refused(tmp_path: Path) -> None:
    stream = SpikeStream.from_array(moving_bar(), threshold=2.0)
    for name, settings, message in [
        ("a.avi", {}, "names no animation.*got .avi"),
        ("a.gif", {"fps": 60.0}, "rate of frames.*got 60"),
        ("a.mp4", {"fps": float("nan")}, "rate of frames.*got nan"),
        ("a.mp4", {"fps": 0.0}, "rate of frames"),
        ("a.gif", {"window": 201}, "no frame.*window 201.*1 to 200"),
        ("a.gif", {"window": 0}, "no frame"),
        ("a.gif", {"stride": 0}, "no frame.*stride 0"),
        ("a.gif", {"threshold": float("inf")}, "threshold must be positive"),
    ]:
        with pytest.raises(ConfigError, match=message):
            write_animation(stream, tmp_path / name, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no threshold"):
        write_animation(SpikeStream.from_array(moving_bar()), tmp_path / "a.gif")
    with pytest.raises(DataFormatError, match=r"cannot write the file.*none"):
        write_animation(stream, tmp_path / "none" / "a.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, name: str) -> None:
    import resource

    spikes = np.random.default_rng(0).random((400, 64, 64)) < 0.4
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with pytest.raises(DataFormatError, match=f"cannot write the file.*{name}"):
            write_animation(SpikeStream.from_array(spikes, threshold=2.0), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "least"), [(".gif", 28.5), (".mp4", 28.0)])
def test_a_genuine_stream_shows_its_frame(
    shared: Path, tmp_path: Path, suffix: str, least: float
) -> None:
    path = shared / "data/spk_gopro_000226.dat"
    stream = SpikeStream.open(path, height=360, width=640, threshold=2.0)
    write_animation(stream, tmp_path / f"a{suffix}", window=32, stride=8)
    frames, _ = decode(tmp_path / f"a{suffix}")
    with Image.open(path.with_suffix(".png")) as image:
        gray = np.asarray(image.convert("RGB")) @ (0.299, 0.587, 0.114)
    gray = gray.reshape(360, 2, 640, 2).mean(axis=(1, 3))
    fits = [10 * np.log10(255**2 / np.mean((frame - gray) ** 2)) for frame in frames]
    assert int(np.argmax(fits)) == 3, "steps 24 to 56, centred on the exposure's middle"
    assert max(fits) >= least
