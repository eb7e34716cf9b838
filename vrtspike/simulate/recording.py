"""Recording rendered scenes: from settings to the sequences of a dataset folder.

A sequence is a pure function of (settings, split, index): its scene, its photographs and the noise
of its camera come from one seed made of `scenes.seed`, the split's name and the index.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrtspike.data.alignment import Timeline
from vrtspike.data.info import DatasetInfo
from vrtspike.data.optics import build_optics
from vrtspike.data.writer import begin, finish, is_written
from vrtspike.settings import CameraSettings, SceneSettings
from vrtspike.simulate.blur import ExposedFrame, expose_frames
from vrtspike.simulate.camera import build_camera
from vrtspike.simulate.photographs import load_photograph, photographs_of
from vrtspike.simulate.scenes import Scene
from vrtspike.simulate.writer import camera_facts, describe, write_sequence

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneTask:
    """One sequence to record."""

    split: str
    index: int

    @property
    def sequence(self) -> str:
        """Return the sequence's name, which no other split uses."""
        return f"{self.split}_{self.index:04d}"


def scene_tasks(scenes: SceneSettings) -> list[SceneTask]:
    """List the sequences of all splits."""
    return [SceneTask(split, i) for split, count in scenes.sequences.items() for i in range(count)]


def describe_scenes(scenes: SceneSettings, camera: CameraSettings) -> DatasetInfo:
    """Return what `dataset.yaml` says of rendered scenes."""
    settings = {"scenes": scenes.model_dump(mode="json"), "camera": camera_facts(camera)}
    return describe(
        height=scenes.height,
        width=scenes.width,
        timeline=_timeline(scenes),
        camera=camera,
        source=f"rendered scenes, exact at any instant: {json.dumps(settings)}",
    )


def build_scene(task: SceneTask, scenes: SceneSettings) -> tuple[Scene, np.random.Generator]:
    """Draw the scene of a sequence; the generator goes on to the camera's charge and noise."""
    rng = np.random.default_rng([scenes.seed, zlib.crc32(task.split.encode()), task.index])
    photographs = photographs_of(task.split)
    names = photographs.backgrounds
    scene = Scene(
        rng,
        load_photograph(names[task.index % len(names)]),
        [load_photograph(name) for name in names + photographs.textures],
        height=scenes.height,
        width=scenes.width,
        frames=scenes.frames,
        steps_per_frame=scenes.steps_per_frame,
        exposure_steps=scenes.exposure_steps,
        motion=scenes.motion,
        objects=scenes.objects,
    )
    return scene, rng


def record_scene(
    task: SceneTask, scenes: SceneSettings, camera: CameraSettings
) -> Iterator[ExposedFrame]:
    """Render a sequence and expose its frames one by one."""
    scene, rng = build_scene(task, scenes)
    return expose_frames(
        scene.render,
        build_camera(camera, scenes.height, scenes.width, rng),
        _timeline(scenes),
        frames=scenes.frames,
        optics=build_optics(camera),
    )


def write_scene(task: SceneTask, scenes: SceneSettings, camera: CameraSettings, root: Path) -> None:
    """Record a sequence into a dataset folder, unless it is there."""
    if not is_written(root, task.split, task.sequence):
        info = describe_scenes(scenes, camera)
        write_sequence(root, task.split, task.sequence, record_scene(task, scenes, camera), info)


def write_scenes(
    scenes: SceneSettings,
    camera: CameraSettings,
    root: Path,
    progress: Progress | None = None,
) -> None:
    """Record all sequences one after the other, in this process."""
    begin(root, describe_scenes(scenes, camera))
    tasks = scene_tasks(scenes)
    for done, task in enumerate(tasks, start=1):
        write_scene(task, scenes, camera, root)
        if progress is not None:
            progress(done, len(tasks))
    finish(root)


def _timeline(scenes: SceneSettings) -> Timeline:
    """Return the exposure at the frame's start, with the sharp frame in its middle."""
    return Timeline(scenes.steps_per_frame, (0, scenes.exposure_steps), scenes.exposure_steps // 2)
