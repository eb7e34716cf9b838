"""Any instant of a frame: sharp frames of several, in pieces as in one, and when they were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from tests.restoration.clip_files import (
    EXPOSURE,
    SETTINGS,
    SIZE,
    STEPS,
    THRESHOLD,
    Array,
    Job,
    Placed,
    images_of,
    shuffled,
    write_clip,
)
from tests.video.video_files import Track, encode, moving, packets
from vrtspike.errors import ConfigError
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.segment_worker import RestoreSettings, Segment
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.video.inspect import inspect_video_file

COUNT = 4
INSTANTS = (1, 3, 5, 7)
"""Of an exposure [1, 7) in frames of 8 steps: two steps apart, on into the next frame."""
AROUND = SpikeRepresentation(3, around="target")
"""What a model sees of the spikes, another thing at every instant."""


@dataclass
class InstantsJob(Job):
    """A job at several instants, whose model sees spikes around them."""

    seen: SpikeRepresentation | None = AROUND

    @property
    def restorer(self) -> Restorer:
        return Restorer(self.model, self.seen)


def at(instants: int) -> RestoreSettings:
    return replace(SETTINGS, instants=instants)


class OneStep(nn.Module):
    """Show the spikes of the step that begins at the instant."""

    def forward(self, blurred: Tensor, voxels: Tensor) -> Tensor:
        return voxels[:, :, 1:2].expand_as(blurred).clone()


ONE_STEP = SpikeRepresentation(1, windows=(1 / STEPS,))


def write_walk(root: Path, count: int) -> tuple[Path, Path]:
    """Write frames whose spikes are a column that walks a pixel a step; return both."""
    place, stream = root / "in" / "walk", root / "walk.dat"
    place.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(place / f"shot{number + 5}.png")
    spikes = np.zeros((count * STEPS, *SIZE), bool)
    for step in range(count * STEPS):
        spikes[step, :, step % SIZE[1]] = True
    write_dat(stream, spikes)
    return place, stream


def lit(images: Array) -> list[int]:
    """Return the column that is lit in each image."""
    columns = images[..., 0].max(axis=1) > 0
    assert (columns.sum(axis=1) == 1).all()
    return [int(column) for column in columns.argmax(axis=1)]


def test_frames_show_their_instants_in_order_and_say_when(tmp_path: Path) -> None:
    place, stream = write_walk(tmp_path, 3)
    out = tmp_path / "out"
    job = InstantsJob(place, stream, out, OneStep(), at(COUNT), seen=ONE_STEP)
    (result,) = job.run()
    assert (result.state, result.frames) == ("done", 12)
    assert [file.name for file in sorted(out.glob("*.png"))] == [f"{n:06d}.png" for n in range(12)]
    assert lit(images_of(out)) == [8 * frame + step for frame in range(3) for step in INSTANTS]
    record = json.loads((out / "restored.json").read_text())
    assert record["instants"] == list(INSTANTS) and record["frames"] == 12
    even = [0.005 + 0.01 * number for number in range(12)]
    assert record["seconds"] == pytest.approx(even), "200 steps a second"
    assert job.heard[-1] == (12, 12)
    assert job.run()[0].state == "there"


def test_without_instants_a_frame_keeps_its_name_and_the_target_is_shown(tmp_path: Path) -> None:
    place, stream = write_walk(tmp_path, 3)
    InstantsJob(place, stream, tmp_path / "out", OneStep(), seen=ONE_STEP).run()
    assert [p.name for p in sorted((tmp_path / "out").glob("*.png"))] == [
        f"shot{number}.png" for number in (5, 6, 7)
    ]
    assert lit(images_of(tmp_path / "out")) == [4, 12, 20]


@pytest.mark.parametrize("patience", [None, 6])
@pytest.mark.parametrize("workers", [1, 5])
def test_pieces_and_stops_change_no_instant(
    tmp_path: Path, workers: int, patience: int | None
) -> None:
    clip = write_clip(tmp_path, 9)
    stops = 0
    while True:
        model = Placed()
        model.stop_after = patience
        job = InstantsJob(clip.place, clip.stream, tmp_path / "out", model, at(COUNT))
        job.workers, job.order = workers, shuffled
        try:
            (result,) = job.run()
        except KeyboardInterrupt:
            assert not (tmp_path / "out").exists()
            stops += 1
            continue
        break
    assert (result.state, result.frames) == ("done", 9 * COUNT)
    assert (patience is None) == (stops == 0)
    restored = images_of(tmp_path / "out")
    for number, instant in enumerate(INSTANTS):
        alone = Restorer(Placed(), AROUND)(
            clip.frames,
            clip.spikes,
            threshold=THRESHOLD,
            exposure=EXPOSURE,
            instant=instant,
            tile_frames=SETTINGS.tile_frames,
            overlap_frames=SETTINGS.overlap_frames,
        )
        np.testing.assert_array_equal(restored[number::COUNT], alone)


def test_a_stop_costs_no_more_than_of_one_instant(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 40)
    seen: list[int] = []

    def watched(segments: Sequence[Segment]) -> Sequence[Segment]:
        seen.extend(segment.stop - segment.first for segment in segments)
        return segments

    for instants in (1, 4):
        out = tmp_path / f"out{instants}"
        InstantsJob(clip.place, clip.stream, out, settings=at(instants), order=watched).run()
        assert max(seen) * instants == 4
        seen.clear()


def test_a_video_of_images_has_so_many_times_the_rate(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 5)
    out = tmp_path / "a.mp4"
    InstantsJob(clip.place, clip.stream, out, settings=at(COUNT)).run()
    found = inspect_video_file(out)
    assert found.frames == 5 * COUNT and found.rate == 25 * COUNT
    assert found.times is not None
    assert [t * found.time_base for t in found.times] == [Fraction(n, 100) for n in range(20)]


def test_a_video_keeps_its_times_and_its_sound(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    times = [40 * n + (20 if n == 3 else 0) for n in range(6)]
    path = encode(
        tmp_path / "in/a.mp4", moving(6, *SIZE), milliseconds=times, tracks=[Track(seconds=0.24)]
    )
    streams = tmp_path / "a"  # of frames that are not evenly spaced, each has its own
    streams.mkdir()
    for n in range(6):
        write_dat(streams / f"{n}.dat", np.random.default_rng(n).random((STEPS, *SIZE)) < 0.4)
    out = tmp_path / "b.mp4"
    InstantsJob(path, streams, out, settings=at(2)).run()
    found = inspect_video_file(out)
    assert found.times is not None
    milliseconds = [float(1000 * t * found.time_base) for t in found.times]
    halves = [20, 20, 30, 10, 20, 20]
    expected = [t + part * half for t, half in zip(times, halves, strict=True) for part in (0, 1)]
    assert milliseconds == expected
    assert packets(out) == packets(path), "the sound is as it was"
    seconds = json.loads((tmp_path / "b.mp4.json").read_text())["seconds"]
    # Of 8 steps a frame: instants 2 and 6; frame 2 takes 60 ms, frame 3 takes 20 ms.
    assert seconds[:2] == pytest.approx([0.01, 0.03])
    assert seconds[4:8] == pytest.approx([0.095, 0.125, 0.145, 0.155])


def test_a_model_without_spikes_is_refused_in_one_line(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 2)
    job = InstantsJob(clip.place, None, tmp_path / "out", settings=at(2), seen=None)
    with pytest.raises(ConfigError, match=r"without spikes.*--instants"):
        job.run()
    assert not (tmp_path / "out").exists()


def test_more_instants_than_steps_are_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 2)
    job = InstantsJob(clip.place, clip.stream, tmp_path / "out", settings=at(8))
    (result,) = job.run()
    assert result.state == "failed" and "8 instants" in str(result.error)
    assert "1 to 7" in str(result.error)


@pytest.mark.parametrize("instant", [0, 8, -1])
def test_an_instant_outside_the_exposure_is_refused(instant: int) -> None:
    frames, spikes = np.zeros((2, *SIZE, 3), np.uint8), np.zeros((2, STEPS, *SIZE), bool)
    restorer = Restorer(Placed(), AROUND)
    with pytest.raises(ConfigError, match=f"outside the exposure.*got {instant}.*1 to 7"):
        restorer(frames, spikes, threshold=2.0, exposure=EXPOSURE, instant=instant)
    for edge in EXPOSURE:
        restorer(frames, spikes, threshold=2.0, exposure=EXPOSURE, instant=edge)


def test_a_model_without_spikes_takes_no_instant() -> None:
    with pytest.raises(ConfigError, match="without spikes"):
        Restorer(Placed())(np.zeros((2, *SIZE, 3), np.uint8), instant=4)


def test_one_instant_in_memory_is_the_one_asked_for() -> None:
    spikes = np.zeros((24, *SIZE), bool)
    spikes[np.arange(24), :, np.arange(24)] = True
    frames, steps = np.zeros((3, *SIZE, 3), np.uint8), spikes.reshape(3, STEPS, *SIZE)
    restorer = Restorer(OneStep(), ONE_STEP)
    for asked, shown in ((None, 4), (2, 2), (7, 7)):
        images = restorer(frames, steps, threshold=1.0, exposure=EXPOSURE, instant=asked)
        assert lit(images) == [shown, shown + 8, shown + 16]
