"""Recording scenes: from settings to the sequences of a dataset folder.

A sequence is a pure function of (settings, split, index): its scene, its photographs and the noise
of its camera come from one seed made of `scenes.seed`, the split's name and the index. How it is
recorded, where that varies, comes from a generator of its own, so that the scene stays. Films have
seeds apart from those of scenes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.datasets.info import DatasetInfo
from vrtspike.datasets.writer import is_written
from vrtspike.simulate.blur import ExposedFrame, Render, expose_frames
from vrtspike.simulate.camera import build_camera
from vrtspike.simulate.photographs import describe_photographs, load_photograph, photographs_of
from vrtspike.simulate.scenes import Scene
from vrtspike.simulate.vary import Recording, draw_recording, same_for_all
from vrtspike.simulate.video_clip import VideoClip
from vrtspike.simulate.writer import camera_facts, describe, write_sequence
from vrtspike.spikes.optics import build_optics

Progress = Callable[[int, int], None]
FILMED_SPLIT = "train"


@dataclass(frozen=True)
class SceneTask:
    """One sequence to record."""

    split: str
    index: int
    filmed: bool = False

    @property
    def sequence(self) -> str:
        """Return the sequence's name, which no other split uses."""
        return f"{self.split}_{'film_' if self.filmed else ''}{self.index:04d}"

    def generator(self, seed: int, *apart: int) -> np.random.Generator:
        """Return the sequence's generator, or one `apart` from it."""
        kind = [zlib.crc32(b"film")] if self.filmed else []
        split = zlib.crc32(self.split.encode())
        return np.random.default_rng([seed, split, self.index, *kind, *apart])


def scene_tasks(scenes: SceneSettings) -> list[SceneTask]:
    """List the sequences of all splits."""
    rendered = [
        SceneTask(split, i) for split, count in scenes.sequences.items() for i in range(count)
    ]
    filmed = range(scenes.films.sequences if scenes.films else 0)
    return rendered + [SceneTask(FILMED_SPLIT, i, filmed=True) for i in filmed]


def describe_scenes(
    scenes: SceneSettings, camera: CameraSettings, recording: Recording | None = None
) -> DatasetInfo:
    """Return what `dataset.yaml` says of scenes, or what holds of one `recording` of them."""
    # Settings younger than datasets are named only where they are set.
    said = scenes.model_dump(mode="json", exclude_none=True)
    if scenes.films is not None:
        said["films"]["videos"] = [video.name for video in scenes.films.videos]
    if scenes.photographs is not None:
        said["photographs"] = describe_photographs(scenes.photographs)
    settings = {"scenes": said, "camera": camera_facts(camera)}
    how = recording or same_for_all(scenes, camera)
    return describe(
        height=scenes.height,
        width=scenes.width,
        timeline=how.timeline,
        camera=how.camera,
        source=f"rendered scenes, exact at any instant: {json.dumps(settings)}",
    )


def build_scene(
    task: SceneTask, scenes: SceneSettings, motion: tuple[float, float] | None = None
) -> tuple[Scene, np.random.Generator]:
    """Draw the scene of a sequence; the generator goes on to the camera's charge and noise.

    `motion` takes the place of that of `scenes`.
    """
    rng = task.generator(scenes.seed)
    photographs = photographs_of(task.split, scenes.photographs)
    names = photographs.backgrounds
    scene = Scene(
        rng,
        load_photograph(names[task.index % len(names)]),
        photographs,
        height=scenes.height,
        width=scenes.width,
        frames=scenes.frames,
        steps_per_frame=scenes.steps_per_frame,
        exposure_steps=scenes.exposure_steps,
        motion=motion or scenes.motion,
        objects=scenes.objects,
    )
    return scene, rng


def recording_of(task: SceneTask, scenes: SceneSettings, camera: CameraSettings) -> Recording:
    """Draw how a sequence is recorded."""
    return draw_recording(scenes, camera, task.generator(scenes.seed, zlib.crc32(b"recording")))


def record_scene(
    task: SceneTask, scenes: SceneSettings, camera: CameraSettings
) -> Iterator[ExposedFrame]:
    """Render a sequence and expose its frames one by one."""
    how = recording_of(task, scenes, camera)
    render, rng = _light(task, scenes, how)
    return expose_frames(
        render,
        build_camera(how.camera, scenes.height, scenes.width, rng),
        how.timeline,
        frames=scenes.frames,
        optics=build_optics(how.camera),
    )


def _light(
    task: SceneTask, scenes: SceneSettings, how: Recording
) -> tuple[Render, np.random.Generator]:
    """Return the light of a sequence at any instant, and the generator that goes on."""
    timed = scenes.model_copy(
        update={
            "steps_per_frame": how.timeline.steps_per_frame,
            "exposure_steps": how.timeline.exposure_steps,
        }
    )
    if not task.filmed:
        scene, rng = build_scene(task, timed, how.motion)
        return scene.render, rng
    assert scenes.films is not None
    rng = task.generator(scenes.seed)
    videos = scenes.films.videos
    clip = VideoClip(
        videos[task.index % len(videos)],
        scenes.films,
        how.timeline,
        rng,
        frames=scenes.frames,
        height=scenes.height,
        width=scenes.width,
    )
    return clip.render, rng


def write_scene(task: SceneTask, scenes: SceneSettings, camera: CameraSettings, root: Path) -> None:
    """Record a sequence into a dataset folder, unless it is there."""
    if not is_written(root, task.split, task.sequence):
        usual = describe_scenes(scenes, camera)
        info = describe_scenes(scenes, camera, recording_of(task, scenes, camera))
        frames = record_scene(task, scenes, camera)
        write_sequence(root, task.split, task.sequence, frames, info, usual)
