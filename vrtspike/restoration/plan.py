"""Planning a restoration: which clips, from what, to where, and what of them is there already.

In: `Source`s, a model, how to cut and compute, and where results go. Out: a `Restoration`, of which
`vrtspike.restoration.job` restores the clips. A clip that fails stops no other.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from vrtspike.datasets.footage import Footage, Source, open_footage
from vrtspike.errors import ConfigError, VrtSpikeError, named_line
from vrtspike.restoration.output import ClipOutput
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.segment_worker import RestoreSettings, check_model, check_tiles
from vrtspike.restoration.workspace import Workspace
from vrtspike.weights import DEFAULT

log = logging.getLogger(__name__)

DIGITS = 6
"""Of the number of a frame, at least."""


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


@dataclass
class PlannedClip:
    """A clip to restore, and how far it is."""

    footage: Footage
    output: ClipOutput
    identity: dict[str, Any]
    """What decides the result."""
    workspace: Workspace
    open: int = 0
    """Segments that are not done."""
    done: list[range] = field(default_factory=list)
    """Windows of those that are."""


@dataclass
class Restoration:
    """Clips to restore, checked, but for those that are there or failed."""

    settings: RestoreSettings
    clips: dict[str, PlannedClip] = field(default_factory=dict)
    results: list[ClipResult] = field(default_factory=list)
    errors: dict[str, VrtSpikeError] = field(default_factory=dict)
    """What was wrong with clips, by name."""

    @property
    def frames(self) -> int:
        """Return how many frames the clips that are restored become."""
        return sum(len(clip.workspace.names) for clip in self.clips.values())

    def fail(self, name: str, output: ClipOutput, error: Exception) -> None:
        """Note that a clip failed."""
        self.errors[name] = clip_error(error, name)
        text = str(self.errors[name])
        self.results.append(ClipResult(name, "failed", str(output.place), error=text))


def clip_error(error: Exception, name: str) -> VrtSpikeError:
    """Return an error of a clip that has a line for its user."""
    if isinstance(error, VrtSpikeError):
        return error
    log.debug("clip %s", name, exc_info=error)
    return VrtSpikeError(f"failed unexpectedly: {named_line(error)}", where=name)


def plan_restoration(
    sources: Sequence[Source],
    outputs: Sequence[ClipOutput],
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
    planned = Restoration(settings)
    for number, (source, output) in enumerate(zip(sources, outputs, strict=True)):
        progress(number, len(sources))
        try:
            output.check()
            footage = open_footage(source, camera)
            check_model(footage, restorer)
            output.check_rate(footage)
            check_tiles(footage, restorer, settings)
            identity = _identity(footage, restorer, weights, settings)
            identity["fps"] = None if output.fps is None else str(output.fps)
            names = frame_names(footage, settings.instants)
            there = output.is_done(identity, names)
        except Exception as error:
            planned.fail(source.name, output, error)
            continue
        if there:
            result = ClipResult(source.name, "there", str(output.place), len(names))
            planned.results.append(result)
        else:
            workspace = Workspace(output.workspace, names)
            planned.clips[source.name] = PlannedClip(footage, output, identity, workspace)
    progress(len(sources), len(sources))
    return planned


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


def frame_names(footage: Footage, each: int) -> tuple[str, ...]:
    """Return the names of the restored frames, `each` of every blurred one.

    One keeps the name of its blurred frame. Several are numbered without a gap, which every tool
    takes for one video.
    """
    if each == 1:
        return tuple(frame.name for frame in footage.clip.frames)
    count = footage.frames * each
    digits = max(DIGITS, len(str(count - 1)))
    return tuple(f"{number:0{digits}d}" for number in range(count))


def frame_instants(footage: Footage, each: int, fps: Fraction | None) -> dict[str, Any]:
    """Return what the record says of instants; nothing of a clip without spikes.

    `instants` are those of every blurred frame (`Timeline.spread`), in steps from its first one.
    `seconds`, where the blurred frames are timed, are those of all restored frames, from the first
    blurred one's start. `fps` are blurred frames a second where the footage says none. A video
    shares the blurred frame's time evenly: when the instants were, wherever the exposure reaches
    far enough.
    """
    info = footage.clip.info
    if info.spike is None:
        return {}
    steps = [timeline.target_step for timeline in info.timeline.spread(each)]
    shares = [Fraction(step, info.timeline.steps_per_frame) for step in steps]
    seconds = [
        round(float(start + share * (following - start)), 9)
        for start, following in pairwise(_starts(footage, fps))
        for share in shares
    ]
    return {"instants": steps, **({"seconds": seconds} if seconds else {})}


def _starts(footage: Footage, fps: Fraction | None) -> list[Fraction]:
    """Return when blurred frames start, and when the last one ends; nothing if it is not known."""
    video, rate = footage.video, footage.fps or fps
    if video is not None and video.times is not None and len(video.times) > 1:
        times = [(time - video.times[0]) * video.time_base for time in video.times]
        return [*times, 2 * times[-1] - times[-2]]
    return [] if rate is None else [number / rate for number in range(footage.frames + 1)]
