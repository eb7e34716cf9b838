"""Simulate a dataset from a sharp video: a file that PyAV decodes, or a folder of frames.

We change the speed of the video: `source_frames` of its frames pass in `steps_per_frame` steps. So
we treat it as a video of rate_hz * source_frames / steps_per_frame frames per second, and
dataset.yaml says so. The light between two frames is interpolated along their motion
(`vrtspike.simulate.interpolation`), or linearly. The target instant of each blurred frame is the
time of a frame of the video, which becomes the sharp frame unchanged:

    video time of step x of frame f = first + f * source_frames
                                      + ceil(lead) - lead + x * source_frames / steps_per_frame,
    lead = target_step * source_frames / steps_per_frame

Each sequence takes `frames * source_frames + 2` frames of the video. Sequences share no frames and
never cross a cut. There is a cut where two consecutive frames differ by `CUT_LEVELS` gray levels
and by `CUT_RATIO` times as much as the two pairs before and the two pairs after (two, because some
videos show each frame twice). For any length of the video, `source_frames + 2` frames and the flow
of one pair are in memory. The frames of a video have some blur themselves, so the sharp frames of
the dataset are only as sharp as the video.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import VideoSettings
from vrtspike.datasets.info import DatasetInfo
from vrtspike.datasets.writer import is_written
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.simulate.blur import ExposedFrame, expose_frame
from vrtspike.simulate.camera import build_camera
from vrtspike.simulate.interpolation import FlowInterpolation
from vrtspike.simulate.writer import camera_facts, describe, write_sequence
from vrtspike.spikes.gray import gray_on_grid
from vrtspike.spikes.optics import build_optics
from vrtspike.spikes.timeline import Timeline
from vrtspike.video.inspect import Image, declared_rate, iter_frames

CUT_LEVELS = 15.0
CUT_RATIO = 2.0


@dataclass(frozen=True)
class VideoSource:
    """Facts about a video from one pass over it; `shots` are half-open ranges of frames."""

    path: Path
    frames: int
    shots: tuple[tuple[int, int], ...]
    height: int
    width: int
    fps: float | None


@dataclass(frozen=True)
class VideoTask:
    """One sequence to record; it starts at frame `first` of the video."""

    split: str
    index: int
    first: int

    @property
    def sequence(self) -> str:
        """Return the name of the sequence, which is unique in the dataset."""
        return f"{self.split}_{self.index:04d}"


def inspect_video(path: Path) -> VideoSource:
    """Decode a whole video once and find its shots; raise DataFormatError if it is damaged."""
    fps = None if path.is_dir() else declared_rate(path)
    changes: list[float] = []
    previous, size = None, (0, 0)
    for frame in iter_frames(path):
        size = frame.shape[:2]
        gray = 255 * gray_on_grid(frame, max(1, size[0] // 4), max(1, size[1] // 4))
        if previous is not None:
            changes.append(float(np.abs(gray - previous).mean()))
        previous = gray
    if previous is None:
        raise DataFormatError("the video holds no frame", where=path)
    return VideoSource(path, len(changes) + 1, find_shots(changes), *size, fps)


def find_shots(changes: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Return the shots (first frame, end) of a video.

    `changes` holds the mean change from each frame to the next, in gray levels.
    """
    padded = np.pad(np.asarray(changes, np.float64), 2)
    count = len(changes)
    neighbours = np.max([padded[i : i + count] for i in (0, 1, 3, 4)], axis=0)
    cuts = 1 + np.flatnonzero(padded[2:-2] > np.maximum(CUT_RATIO * neighbours, CUT_LEVELS))
    edges = [0, *cuts.tolist(), len(changes) + 1]
    return tuple(pairwise(edges))


def video_tasks(source: VideoSource, settings: VideoSettings) -> list[VideoTask]:
    """Cut a video into sequences and distribute them over the splits, in the order of the video.

    Raise ConfigError if there are fewer sequences than splits.
    """
    need = frames_of_sequence(settings)
    starts = [
        first + i * need for first, stop in source.shots for i in range((stop - first) // need)
    ]
    if len(starts) < len(settings.splits):
        raise ConfigError(
            "the video is too short for its splits",
            where=source.path,
            got=f"{source.frames} frames in {len(source.shots)} shots = {len(starts)} sequences "
            f"of {need} frames",
            expected=f"{len(settings.splits)} sequences ({', '.join(settings.splits)})",
            fix="lower video.frames or video.source_frames, or name fewer video.splits",
        )
    tasks: list[VideoTask] = []
    for split, share in deal(len(starts), settings.splits).items():
        for index in range(share):
            tasks.append(VideoTask(split, index, starts[len(tasks)]))
    return tasks


def frames_of_sequence(settings: VideoSettings) -> int:
    """Return the number of video frames that a sequence takes."""
    return settings.frames * settings.source_frames + 2


def deal(count: int, weights: dict[str, float]) -> dict[str, int]:
    """Divide a count by weights; each share is at least 1, rounded by largest remainder."""
    total = sum(weights.values())
    shares = {name: max(1, int(count * w / total)) for name, w in weights.items()}
    while (missing := count - sum(shares.values())) != 0:
        excess = {name: count * w / total - shares[name] for name, w in weights.items()}
        if missing > 0:
            shares[max(excess, key=excess.__getitem__)] += 1
        else:
            above_one = [name for name, share in shares.items() if share > 1]
            shares[min(above_one, key=excess.__getitem__)] -= 1
    return shares


def describe_video(
    source: VideoSource, settings: VideoSettings, camera: CameraSettings
) -> DatasetInfo:
    """Return the content of `dataset.yaml`."""
    fps = camera.rate_hz * settings.source_frames / settings.steps_per_frame
    declared = f"{source.fps:g}" if source.fps else "an unknown number of"
    facts = {
        "video": settings.model_dump(mode="json", exclude={"interpolation"}),
        "camera": camera_facts(camera),
    }
    return describe(
        height=source.height,
        width=source.width,
        timeline=_timeline(settings),
        camera=camera,
        source=f"video {source.path.name} of {source.frames} frames, declared {declared} fps, "
        f"taken as {fps:g} fps, {settings.interpolation} interpolation: {json.dumps(facts)}",
    )


def write_video(
    tasks: Sequence[VideoTask],
    source: VideoSource,
    settings: VideoSettings,
    camera: CameraSettings,
    root: Path,
) -> None:
    """Record sequences in one pass over the video; skip those that are already written.

    `tasks` must be in the order of the video.
    """
    open_tasks = [task for task in tasks if not is_written(root, task.split, task.sequence)]
    if not open_tasks:
        return
    info = describe_video(source, settings, camera)
    light = InterpolatedVideo(source.path, open_tasks[0].first, settings.interpolation)
    for task in open_tasks:
        frames = record_video(task, light, info, settings, camera)
        write_sequence(root, task.split, task.sequence, frames, info)


def record_video(
    task: VideoTask,
    light: InterpolatedVideo,
    info: DatasetInfo,
    settings: VideoSettings,
    camera: CameraSettings,
) -> Iterator[ExposedFrame]:
    """Yield the exposed frames of one sequence one by one."""
    rng = np.random.default_rng([settings.seed, zlib.crc32(task.split.encode()), task.index])
    spike_camera = build_camera(camera, info.frame.height, info.frame.width, rng)
    optics = build_optics(camera)
    rate = settings.source_frames / settings.steps_per_frame
    timeline = info.timeline
    lead = math.ceil(timeline.target_step * settings.source_frames / settings.steps_per_frame)
    target = task.first + lead

    def render(steps: NDArray[np.float64]) -> Float[np.ndarray, "n h w 3"]:
        """Render instants of the sequence; at a target instant the video time is a whole number."""
        return light.at(target + (steps - timeline.target_step) * rate)

    for frame in range(settings.frames):
        first_step = frame * timeline.steps_per_frame
        light.forget_before(target + (first_step - timeline.target_step) * rate)
        yield expose_frame(render, spike_camera, timeline, first_step, optics)


class InterpolatedVideo:
    """The light of a video at any time; the unit of time is one frame of the video.

    Frames are decoded forwards when they are needed. `view` is applied to each decoded frame, for
    example to crop it.
    """

    def __init__(
        self,
        path: Path,
        start: int = 0,
        interpolation: Literal["linear", "flow"] = "flow",
        view: Callable[[Image], Image] | None = None,
    ) -> None:
        self.path = path
        self.interpolation = interpolation
        frames = iter_frames(path, start)
        self._frames = frames if view is None else map(view, frames)
        self._next = start
        self._kept: dict[int, Image] = {}
        self._motion: tuple[int, FlowInterpolation] | None = None

    def at(self, times: NDArray[np.float64]) -> Float[np.ndarray, "n h w 3"]:
        """Return the light in [0, 1] at each time; at a whole number it is the frame itself."""
        instants = []
        for time in times:
            number = math.floor(time)
            share = np.float32(time - number)
            if share > 0 and self.interpolation == "flow":
                instants.append(self._motion_after(number).at(float(share)))
                continue
            light = self._frame(number) * np.float32((1 - share) / 255)
            if share > 0:
                light += self._frame(number + 1) * np.float32(share / 255)
            instants.append(light)
        return np.stack(instants)

    def forget_before(self, time: float) -> None:
        """Drop the frames that only times before `time` need."""
        self._kept = {n: f for n, f in self._kept.items() if n >= math.floor(time)}

    @property
    def frames_in_memory(self) -> int:
        """Return the number of decoded frames in memory."""
        return len(self._kept)

    def _motion_after(self, number: int) -> FlowInterpolation:
        """Return the motion from a frame to the next; the last result is cached."""
        if self._motion is None or self._motion[0] != number:
            self._motion = None
            pair = FlowInterpolation(self._frame(number), self._frame(number + 1))
            self._motion = (number, pair)
        return self._motion[1]

    def _frame(self, number: int) -> Image:
        """Return a frame by number; decode the video up to it."""
        while self._next <= number:
            frame = next(self._frames, None)
            if frame is None:
                raise DataFormatError(
                    "the video ends earlier than when it was inspected",
                    where=self.path,
                    got=f"{self._next} frames",
                    expected=f"frame {number}",
                )
            self._kept[self._next] = frame
            self._next += 1
        return self._kept[number]


def _timeline(settings: VideoSettings) -> Timeline:
    """Return a timeline with the exposure at the start and the sharp frame in its middle."""
    exposure = settings.exposure_steps
    return Timeline(settings.steps_per_frame, (0, exposure), exposure // 2)
