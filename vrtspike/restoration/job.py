"""Restoring clips from files to files: any number, of any length, by any number of workers.

In: `Source`s, a model, how to cut and compute, and where results go. Out: a `ClipResult` each.
Clips are cut into segments of some windows; workers restore these in any order, and the caller of
`restore_clips` follows: it adds up what segments share and delivers clips whose frames are all
there. What was done before a stop is not done again. A clip that fails stops no other.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Literal, Protocol, runtime_checkable

import vrtspike
from vrtspike.datasets.footage import Footage, Source, open_footage
from vrtspike.errors import ConfigError, ResourceError, VrtSpikeError, named_line
from vrtspike.restoration.output import ClipOutput
from vrtspike.restoration.restored_frames import frame_instants, frame_names
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.segment_worker import (
    RestoreSettings,
    Segment,
    SegmentWorker,
    check_model,
    check_tiles,
)
from vrtspike.restoration.workspace import Workspace
from vrtspike.storage.lock import allow_open_files
from vrtspike.weights import DEFAULT

log = logging.getLogger(__name__)

MOST_WINDOWS = 4
"""Windows of a segment; what a stop can cost a worker."""
SEGMENTS_A_WORKER = 4
"""So many segments each, at least, so that no worker waits long for another at the end."""


@dataclass(frozen=True)
class ClipResult:
    """What became of a clip."""

    name: str
    state: Literal["done", "there", "failed"]
    out: str
    frames: int = 0
    seconds: float = 0.0
    """Workers' seconds, added up."""
    tiles: tuple[int | None, ...] = ()
    memory: int = 0
    """Most bytes that a worker held."""
    error: str | None = None


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
            failure = _ours(error, segment.name)
            segment.workspace.fail(failure)
    return SegmentResult(segment, failure)


def _ours(error: Exception, name: str) -> VrtSpikeError:
    """Return an error of a clip that has a line for its user."""
    if isinstance(error, VrtSpikeError):
        return error
    log.debug("clip %s", name, exc_info=error)
    return VrtSpikeError(f"failed unexpectedly: {named_line(error)}", where=name)


@dataclass
class _Clip:
    """A clip on its way."""

    footage: Footage
    delivery: ClipOutput
    identity: dict[str, Any]
    workspace: Workspace
    open: int = 0
    """Segments that are not done."""
    done: list[range] = field(default_factory=list)
    """Windows of those that are."""
    error: VrtSpikeError | None = None


@dataclass
class Restoration:
    """Clips to restore, checked and cut into segments, but for those that are there or failed."""

    settings: RestoreSettings
    clips: dict[str, _Clip] = field(default_factory=dict)
    results: list[ClipResult] = field(default_factory=list)
    errors: dict[str, VrtSpikeError] = field(default_factory=dict)
    """What was wrong with clips, by name."""

    @property
    def frames(self) -> int:
        """Return how many frames the clips that are restored become."""
        return sum(len(clip.workspace.names) for clip in self.clips.values())

    def fail(self, name: str, delivery: ClipOutput, error: VrtSpikeError) -> None:
        """Note that a clip failed."""
        self.errors[name] = error
        self.results.append(ClipResult(name, "failed", str(delivery.place), error=str(error)))


def plan_restoration(
    sources: Sequence[Source],
    targets: Sequence[ClipOutput],
    restorer: Restorer,
    weights: str,
    settings: RestoreSettings,
    camera: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Restoration:
    """Open every clip and look at what is there of its result; `weights` tells models apart.

    Videos are decoded once, so this takes a while; `progress` hears of clips.
    """
    if settings.instants > 1 and restorer.spikes is None:
        raise ConfigError(
            "a model without spikes restores one instant of a frame",
            got=f"{settings.instants} instants",
            fix=f"leave --instants away, or give spikes and --weights {DEFAULT}",
        )
    found = Restoration(settings)
    for number, (source, delivery) in enumerate(zip(sources, targets, strict=True)):
        progress(number, len(sources))
        try:
            delivery.check()
            footage = open_footage(source, camera)
            check_model(footage, restorer)
            delivery.check_rate(footage)
            check_tiles(footage, restorer, settings)
            identity = _identity(footage, restorer, weights, settings)
            identity["fps"] = None if delivery.fps is None else str(delivery.fps)
            names = frame_names(footage, settings.instants)
            if delivery.is_done(identity, names):
                result = ClipResult(source.name, "there", str(delivery.place), len(names))
                found.results.append(result)
                continue
        except Exception as error:
            found.fail(source.name, delivery, _ours(error, source.name))
            continue
        workspace = Workspace(delivery.workspace, names)
        found.clips[source.name] = _Clip(footage, delivery, identity, workspace)
    progress(len(sources), len(sources))
    return found


def restore_clips(
    planned: Restoration, runner: Runner, progress: Callable[[int, int], None]
) -> list[ClipResult]:
    """Restore what is planned; return what became of every clip, in order of their names."""
    with ExitStack() as stack, ThreadPoolExecutor(1, "deliver") as delivering:
        allow_open_files()
        segments, done, finished = [], 0, list[Future[None]]()
        for name, clip in list(planned.clips.items()):
            try:
                stack.enter_context(clip.workspace.begun(clip.identity, _taken(clip)))
            except Exception as error:
                planned.fail(name, clip.delivery, _ours(error, name))
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
            finished.append(delivering.submit(_finish, planned, name))
        for result in runner.run(segments, count):
            if _follow(planned, result):
                finished.append(delivering.submit(_finish, planned, result.segment.name))
        for future in finished:
            future.result()
    return sorted(planned.results, key=lambda result: result.name)


def _taken(clip: _Clip) -> ResourceError:
    return ResourceError(
        "this clip is being restored by another process",
        where=clip.delivery.place,
        fix="wait for it, or give another --out",
    )


def _segments(clip: _Clip, settings: RestoreSettings, workers: int) -> list[Segment]:
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
    if clip.error is None and result.error is not None:
        clip.error = result.error
        planned.fail(name, clip.delivery, result.error)
    if clip.error is None:
        clip.done = sorted([*clip.done, range(segment.first, segment.stop)], key=itemgetter(0))
        try:
            _add_up(clip, planned.settings)
        except Exception as error:
            clip.error = _ours(error, name)
            clip.workspace.fail(clip.error)
            planned.fail(name, clip.delivery, clip.error)
    return clip.error is None and not clip.open


def _add_up(clip: _Clip, settings: RestoreSettings) -> None:
    """Add up what segments share of a clip's frames."""
    clip.workspace.add_up(settings.restored_windows(clip.footage.frames), clip.done)


def _finish(planned: Restoration, name: str) -> None:
    """Deliver a clip."""
    clip = planned.clips[name]
    facts = clip.workspace.done()
    result = ClipResult(
        name,
        "done",
        str(clip.delivery.place),
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
        **frame_instants(clip.footage, planned.settings.instants, clip.delivery.fps),
    }
    try:
        _add_up(clip, planned.settings)
        clip.delivery.deliver(clip.workspace, clip.footage, record)
    except Exception as error:
        clip.error = _ours(error, name)
        planned.fail(name, clip.delivery, clip.error)
        return
    planned.results.append(result)


def _identity(
    footage: Footage, restorer: Restorer, weights: str, settings: RestoreSettings
) -> dict[str, Any]:
    """Return what decides a result: the files, the camera, the model and the settings."""
    clip = footage.clip
    files = [clip.folder.path / file for file in clip.files]
    if footage.video is not None:
        files.append(footage.video.path)
    stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    pieces = [[(piece.start, piece.stop) for piece in frame.spikes] for frame in clip.frames]
    text = json.dumps([stamps, pieces, clip.info.model_dump(mode="json", exclude={"source"})])
    chosen = {k: v for k, v in asdict(settings).items() if k != "memory"}
    built = None if restorer.settings is None else restorer.settings.model_dump(mode="json")
    model = json.dumps([None if restorer.spikes is None else asdict(restorer.spikes), built])
    return {
        "weights": weights,
        "model": hashlib.sha256(model.encode()).hexdigest(),
        "input": hashlib.sha256(text.encode()).hexdigest(),
        **chosen,
    }
