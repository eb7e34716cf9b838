"""Record scenes: from settings to the sequences of a dataset folder.

A sequence depends only on (settings, split, index). Its scene, its photographs and the noise of its
camera come from one seed made of `scenes.seed`, the name of the split and the index. The recording
(`vrtspike.simulate.vary`) has a separate generator, so that it does not change the scene. Sequences
from videos (`scenes.films`) have other seeds than rendered scenes.
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
    """One sequence to record; `filmed` if it comes from a video and not from a rendered scene."""

    split: str
    index: int
    filmed: bool = False

    @property
    def sequence(self) -> str:
        """Return the name of the sequence, which is unique in the dataset."""
        return f"{self.split}_{'film_' if self.filmed else ''}{self.index:04d}"

    def generator(self, seed: int, *apart: int) -> np.random.Generator:
        """Return the generator of the sequence; numbers in `apart` give independent ones."""
        kind = [zlib.crc32(b"film")] if self.filmed else []
        split = zlib.crc32(self.split.encode())
        return np.random.default_rng([seed, split, self.index, *kind, *apart])


def scene_tasks(scenes: SceneSettings) -> list[SceneTask]:
    """List the sequences to record, of all splits."""
    rendered = [
        SceneTask(split, i) for split, count in scenes.sequences.items() for i in range(count)
    ]
    filmed = range(scenes.films.sequences if scenes.films else 0)
    return rendered + [SceneTask(FILMED_SPLIT, i, filmed=True) for i in filmed]


def describe_scenes(
    scenes: SceneSettings, camera: CameraSettings, recording: Recording | None = None
) -> DatasetInfo:
    """Return the content of `dataset.yaml`, or that of a sequence with this `recording`."""
    # Settings that are None are left out, so that older datasets still have the same description.
    scene_facts = scenes.model_dump(mode="json", exclude_none=True)
    if scenes.films is not None:
        scene_facts["films"]["videos"] = [video.name for video in scenes.films.videos]
    if scenes.photographs is not None:
        scene_facts["photographs"] = describe_photographs(scenes.photographs)
    settings = {"scenes": scene_facts, "camera": camera_facts(camera)}
    recording = recording or same_for_all(scenes, camera)
    return describe(
        height=scenes.height,
        width=scenes.width,
        timeline=recording.timeline,
        camera=recording.camera,
        source=f"rendered scenes, exact at any instant: {json.dumps(settings)}",
    )


def build_scene(
    task: SceneTask, scenes: SceneSettings, motion: tuple[float, float] | None = None
) -> tuple[Scene, np.random.Generator]:
    """Draw the scene of a sequence.

    Return it with the generator, from which the caller draws the charge and noise of the camera.
    `motion` replaces `scenes.motion`.
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
    """Draw the recording of a sequence from its own generator."""
    return draw_recording(scenes, camera, task.generator(scenes.seed, zlib.crc32(b"recording")))


def record_scene(
    task: SceneTask, scenes: SceneSettings, camera: CameraSettings
) -> Iterator[ExposedFrame]:
    """Render a sequence, and yield its exposed frames one by one."""
    recording = recording_of(task, scenes, camera)
    render, rng = _light(task, scenes, recording)
    return expose_frames(
        render,
        build_camera(recording.camera, scenes.height, scenes.width, rng),
        recording.timeline,
        frames=scenes.frames,
        optics=build_optics(recording.camera),
    )


def _light(
    task: SceneTask, scenes: SceneSettings, recording: Recording
) -> tuple[Render, np.random.Generator]:
    """Return a function that renders the sequence at any instant, and the camera's generator."""
    timed = scenes.model_copy(
        update={
            "steps_per_frame": recording.timeline.steps_per_frame,
            "exposure_steps": recording.timeline.exposure_steps,
        }
    )
    if not task.filmed:
        scene, rng = build_scene(task, timed, recording.motion)
        return scene.render, rng
    assert scenes.films is not None
    rng = task.generator(scenes.seed)
    videos = scenes.films.videos
    clip = VideoClip(
        videos[task.index % len(videos)],
        scenes.films,
        recording.timeline,
        rng,
        frames=scenes.frames,
        height=scenes.height,
        width=scenes.width,
    )
    return clip.render, rng


def write_scene(task: SceneTask, scenes: SceneSettings, camera: CameraSettings, root: Path) -> None:
    """Record a sequence into a dataset folder, unless it is already written."""
    if not is_written(root, task.split, task.sequence):
        common = describe_scenes(scenes, camera)
        info = describe_scenes(scenes, camera, recording_of(task, scenes, camera))
        frames = record_scene(task, scenes, camera)
        write_sequence(root, task.split, task.sequence, frames, info, common)
