"""Restoring planned clips from files to files, of any length, by any number of workers.

In: a `Restoration` and a `Runner`. Out: a `ClipResult` of each clip. Clips are cut into segments of
some windows; workers restore these in any order, and the caller of `restore_clips` follows: it adds
up what segments share and publishes clips whose frames are all there. What was done before a stop
is not done again. A clip that fails stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Protocol, runtime_checkable

import vrtspike
from vrtspike.errors import ResourceError, VrtSpikeError
from vrtspike.restoration.plan import (
    ClipResult,
    PlannedClip,
    Restoration,
    clip_error,
    frame_instants,
)
from vrtspike.restoration.segment_worker import RestoreSettings, Segment, SegmentWorker
from vrtspike.storage.lock import allow_open_files

MOST_WINDOWS = 4
"""Windows of a segment; what a stop can cost a worker."""
SEGMENTS_A_WORKER = 4
"""So many segments each, at least, so that no worker waits long for another at the end."""


@dataclass(frozen=True)
class SegmentResult:
    """What became of a segment: frames, or the error for which its clip has failed."""

    segment: Segment
    error: VrtSpikeError | None = None


@runtime_checkable
class Runner(Protocol):
    """Whatever restores segments: this process, or workers on Ray."""

    @property
    def workers(self) -> int:
        """Return how many segments are restored at a time."""
        ...

    def run(
        self, segments: Sequence[Segment], progress: Callable[[int], None]
    ) -> Iterator[SegmentResult]:
        """Restore segments; yield what became of each; tell `progress` of frames."""
        ...


class InProcess:
    """Restore segments in this process, one after the other."""

    workers = 1

    def __init__(self, worker: SegmentWorker) -> None:
        self._worker = worker

    def run(
        self, segments: Sequence[Segment], progress: Callable[[int], None]
    ) -> Iterator[SegmentResult]:
        """Restore segments in order."""
        for segment in segments:
            yield restore_segment(self._worker, segment, progress)


def restore_segment(
    worker: SegmentWorker, segment: Segment, progress: Callable[[int], None] | None = None
) -> SegmentResult:
    """Restore a segment; what is wrong with its clip is a result, also of its other segments."""
    failure = segment.workspace.failure
    if failure is None:
        try:
            worker.restore(segment, progress)
        except Exception as error:
            failure = clip_error(error, segment.name)
            segment.workspace.fail(failure)
    return SegmentResult(segment, failure)


def restore_clips(
    planned: Restoration, runner: Runner, progress: Callable[[int, int], None]
) -> list[ClipResult]:
    """Restore what is planned; return what became of every clip, in order of their names."""
    with ExitStack() as stack, ThreadPoolExecutor(1, "publish") as publisher:
        allow_open_files()
        segments, done, published = [], 0, list[Future[None]]()
        for name, clip in list(planned.clips.items()):
            try:
                stack.enter_context(clip.workspace.begun(clip.identity, _taken(clip)))
            except Exception as error:
                planned.fail(name, clip.output, error)
                del planned.clips[name]
                continue
            own = _segments(clip, planned.settings, runner.workers)
            clip.open, clip.done = len(own), clip.workspace.segments()
            segments += own
            done += len(clip.workspace.names) - _frames(own, planned.settings)
        total = planned.frames
        progress(done, total)

        def count(frames: int) -> None:
            nonlocal done
            done = min(done + frames, total)
            progress(done, total)

        for name in [name for name, clip in planned.clips.items() if not clip.open]:
            published.append(publisher.submit(_publish, planned, name))
        for result in runner.run(segments, count):
            if _follow(planned, result):
                published.append(publisher.submit(_publish, planned, result.segment.name))
        for future in published:
            future.result()
    return sorted(planned.results, key=lambda result: result.name)


def _taken(clip: PlannedClip) -> ResourceError:
    return ResourceError(
        "this clip is being restored by another process",
        where=clip.output.place,
        fix="wait for it, or give another --out",
    )


def _segments(clip: PlannedClip, settings: RestoreSettings, workers: int) -> list[Segment]:
    """Cut what is left of a clip into segments."""
    count = len(settings.windows(clip.footage.frames))
    most = max(MOST_WINDOWS // settings.instants, 1)
    size = min(max(count // (SEGMENTS_A_WORKER * workers), 1), most)
    return [
        Segment(clip.footage, clip.workspace, first, min(first + size, run.stop))
        for run in clip.workspace.open_windows(count)
        for first in range(run.start, run.stop, size)
    ]


def _frames(segments: Iterable[Segment], settings: RestoreSettings) -> int:
    """Return how many restored frames segments of a clip hold."""
    frames: set[int] = set()
    for segment in segments:
        windows = settings.restored_windows(segment.footage.frames)
        frames |= set(range(windows[segment.first].start, windows[segment.stop - 1].stop))
    return len(frames)


def _follow(planned: Restoration, result: SegmentResult) -> bool:
    """Take note of a segment; tell whether it was the last one of a clip without errors."""
    name, segment = result.segment.name, result.segment
    clip = planned.clips[name]
    clip.open -= 1
    if name in planned.errors:
        return False
    if result.error is not None:
        planned.fail(name, clip.output, result.error)
        return False
    clip.done = sorted([*clip.done, range(segment.first, segment.stop)], key=itemgetter(0))
    try:
        _add_up(clip, planned.settings)
    except Exception as error:
        planned.fail(name, clip.output, error)
        clip.workspace.fail(planned.errors[name])
        return False
    return not clip.open


def _add_up(clip: PlannedClip, settings: RestoreSettings) -> None:
    """Add up what segments share of a clip's frames."""
    clip.workspace.add_up(settings.restored_windows(clip.footage.frames), clip.done)


def _publish(planned: Restoration, name: str) -> None:
    """Put a clip whose frames are all there in its place, with a record of what was restored."""
    clip = planned.clips[name]
    facts = clip.workspace.done()
    result = ClipResult(
        name,
        "done",
        str(clip.output.place),
        len(clip.workspace.names),
        sum(fact["seconds"] for fact in facts),
        tuple(dict.fromkeys(fact["tile"] for fact in facts)),
        max(fact["memory"] for fact in facts),
    )
    record = {
        "vrtspike": vrtspike.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **{k: v for k, v in asdict(result).items() if k not in ("state", "out", "error")},
        "settings": asdict(planned.settings),
        "identity": clip.identity,
        "frame_names": list(clip.workspace.names),
        **frame_instants(clip.footage, planned.settings.instants, clip.output.fps),
    }
    try:
        _add_up(clip, planned.settings)
        clip.output.publish(clip.workspace, clip.footage, record)
    except Exception as error:
        planned.fail(name, clip.output, error)
        return
    planned.results.append(result)
