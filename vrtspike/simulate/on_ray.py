"""Run a simulation as Ray tasks, which record sequences in parallel on all machines of the cluster.

The caller connects to Ray. All machines must share the output folder. A simulation that was stopped
continues with the missing sequences, and gives the same result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import ray
from ray.exceptions import RayTaskError

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings, VideoSettings
from vrtspike.datasets.writer import begin, finish
from vrtspike.errors import VrtSpikeError
from vrtspike.simulate.recording import describe_scenes, scene_tasks, write_scene
from vrtspike.simulate.video import (
    VideoTask,
    describe_video,
    inspect_video,
    video_tasks,
    write_video,
)

Progress = Callable[[int, int], None]


def simulate_scenes(
    scenes: SceneSettings,
    camera: CameraSettings,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
) -> None:
    """Render scenes and write them to the dataset folder `out`.

    `progress` is called with the number of sequences written and their total.
    """
    root, scenes = Path(out).absolute(), with_absolute_paths(scenes)
    begin(root, describe_scenes(scenes, camera))
    tasks = scene_tasks(scenes)
    record = ray.remote(write_scene)
    jobs = {record.remote(task, scenes, camera, root): 1 for task in tasks}
    _wait(jobs, len(tasks), progress)
    finish(root)


def simulate_video(
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    camera: CameraSettings,
    progress: Progress | None = None,
    *,
    settings: VideoSettings | None = None,
) -> None:
    """Make a dataset folder `out` from a sharp video file or a folder of frames.

    `progress` is called with the number of sequences written and their total.
    """
    root, settings = Path(out).absolute(), settings or VideoSettings()
    source = inspect_video(Path(video).absolute())
    tasks = video_tasks(source, settings)
    begin(root, describe_video(source, settings, camera))
    record = ray.remote(write_video)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    passes = max(1, int(2 * resources.get("CPU", 1)))
    jobs = {
        record.remote(part, source, settings, camera, root): len(part)
        for part in _parts(tasks, passes)
    }
    _wait(jobs, len(tasks), progress)
    finish(root)


def with_absolute_paths(scenes: SceneSettings) -> SceneSettings:
    """Make the paths of photographs and videos absolute, because tasks run in other folders."""
    changes: dict[str, object] = {}
    if scenes.photographs is not None:
        changes["photographs"] = tuple(place.absolute() for place in scenes.photographs)
    if scenes.films is not None:
        videos = tuple(video.absolute() for video in scenes.films.videos)
        changes["films"] = scenes.films.model_copy(update={"videos": videos})
    return scenes.model_copy(update=changes)


def _parts(items: Sequence[VideoTask], most: int) -> list[Sequence[VideoTask]]:
    """Cut a list into at most `most` consecutive parts of nearly equal length."""
    count = min(most, len(items))
    edges = [len(items) * i // count for i in range(count + 1)]
    return [items[a:b] for a, b in pairwise(edges)]


def _wait(jobs: dict[ray.ObjectRef[None], int], total: int, progress: Progress | None) -> None:
    """Wait for all jobs; on the first failure, cancel the other jobs and raise its error."""
    pending, done = list(jobs), 0
    try:
        while pending:
            finished, pending = ray.wait(pending, num_returns=1)
            ray.get(finished)
            done += sum(jobs[job] for job in finished)
            if progress is not None:
                progress(done, total)
    except RayTaskError as error:
        if isinstance(error.cause, VrtSpikeError):
            raise error.cause from None
        raise
    finally:
        for job in pending:
            ray.cancel(job)
