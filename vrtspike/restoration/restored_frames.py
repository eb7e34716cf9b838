"""Which frames a clip becomes: what they are called, and which instants they show.

Of a blurred frame there are one restored frame or several, at the instants of `Timeline.spread`.
In a video they share the blurred frame's time evenly. That is when their instants were, wherever
the exposure reaches far enough; the record beside the result says when they were in any case.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

from vrtspike.datasets.footage import Footage

DIGITS = 6
"""Of the number of a frame, at least."""


def frame_names(footage: Footage, each: int) -> tuple[str, ...]:
    """Return the names of the frames, `each` of every blurred one.

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

    `instants` are those of every blurred frame, in steps from its first one. `seconds`, where the
    blurred frames are timed, are those of all restored frames, from the first blurred one's start.
    `fps` are blurred frames a second where the footage says none.
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
