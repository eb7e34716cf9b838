"""Restoring segments on Ray: an actor a GPU, or several on CPUs, fed by Ray Data.

The caller connects to Ray. Input and output must lie where all nodes see them; weights travel to
the workers by themselves. A worker that dies is replaced, and its segment restored again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy

from vrtspike.datasets.footage import Footage
from vrtspike.errors import VrtSpikeError, error_from_text, error_text
from vrtspike.restoration.job import SegmentResult, restore_segment
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.segment_worker import RestoreSettings, Segment, SegmentWorker
from vrtspike.restoration.workspace import Workspace
from vrtspike.samples.stream import quiet_ray_data

MOST_ATTEMPTS = 3
"""Workers that may die of a segment before its clip fails; Ray itself would try for ever."""
AHEAD = 2
"""Segments that an actor is given at a time: the one it restores, and the next."""


@dataclass(frozen=True)
class OnRay:
    """Restore segments with actors on Ray."""

    restorer: Restorer
    """On the CPU."""
    settings: RestoreSettings
    workers: int
    gpu: bool
    threads: int
    """Of a worker on a CPU."""

    def run(
        self, segments: Sequence[Segment], progress: Callable[[int], None]
    ) -> Iterator[SegmentResult]:
        """Restore segments in any order."""
        if not segments:
            return
        clips = {segment.name: (segment.footage, segment.workspace) for segment in segments}
        common = ray.put(_Common(self.restorer, self.settings, clips, self.gpu, self.threads))
        rows = [{"clip": s.name, "first": s.first, "stop": s.stop} for s in segments]
        quiet_ray_data()
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            batch_size=1,
            batch_format="numpy",
            fn_constructor_kwargs={"common": [common]},
            compute=ActorPoolStrategy(
                size=min(self.workers, len(rows)), max_tasks_in_flight_per_actor=AHEAD
            ),
            num_cpus=1 if self.gpu else self.threads,
            num_gpus=1 if self.gpu else 0,
        )
        dataset.context.enable_progress_bars = False
        for row in dataset.iter_rows():
            progress(int(row["frames"]))
            footage, workspace = clips[row["clip"]]
            segment = Segment(footage, workspace, int(row["first"]), int(row["stop"]))
            text = row["error"]
            yield SegmentResult(segment, error_from_text(text) if text else None)


@dataclass(frozen=True)
class _Common:
    """What every worker needs, sent once."""

    restorer: Restorer
    settings: RestoreSettings
    clips: dict[str, tuple[Footage, Workspace]]
    gpu: bool
    threads: int


class _Actor:
    """A worker as Ray Data calls it: a segment's name and windows in, what became of it out."""

    def __init__(self, common: list[Any]) -> None:
        found: _Common = ray.get(common[0])
        device = torch.device("cuda" if found.gpu else "cpu")
        self._clips = found.clips
        self._worker = SegmentWorker(found.restorer, found.settings, device, found.threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        footage, workspace = self._clips[str(batch["clip"][0])]
        segment = Segment(footage, workspace, int(batch["first"][0]), int(batch["stop"][0]))
        frames = 0

        def count(more: int) -> None:
            nonlocal frames
            frames += more

        try:
            workspace.note_attempt(segment.first, MOST_ATTEMPTS)
            result = restore_segment(self._worker, segment, count)
        except VrtSpikeError as failure:
            workspace.fail(failure)
            result = SegmentResult(segment, failure)
        error = "" if result.error is None else error_text(result.error)
        return {**batch, "frames": [frames], "error": [error]}
