"""Writing a dataset of scenes in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.datasets.writer import begin, finish
from vrtspike.simulate.recording import describe_scenes, scene_tasks, write_scene


def write_scenes(
    scenes: SceneSettings,
    camera: CameraSettings,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Record all sequences one after the other."""
    begin(root, describe_scenes(scenes, camera))
    tasks = scene_tasks(scenes)
    for done, task in enumerate(tasks, start=1):
        write_scene(task, scenes, camera, root)
        progress(done, len(tasks))
    finish(root)
