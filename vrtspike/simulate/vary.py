"""What differs from one simulated sequence to the next: the cameras, and how they keep time.

In: the settings of all sequences, and the generator of one. Out: its `Recording`. A model that saw
one threshold, one exposure and one spike rate fails at others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.spikes.timeline import Timeline

MIDDLE = 0.5
"""Share of the exposure after which the sharp frame's instant lies, unless it varies."""


@dataclass(frozen=True)
class Recording:
    """How a sequence is recorded."""

    timeline: Timeline
    camera: CameraSettings
    motion: tuple[float, float]
    """Least and greatest length of the blur, in pixels an exposure."""


def same_for_all(scenes: SceneSettings, camera: CameraSettings) -> Recording:
    """Return what holds where nothing varies: exposures begin with their frames."""
    exposure = scenes.exposure_steps
    timeline = Timeline(scenes.steps_per_frame, (0, exposure), _target(exposure, MIDDLE))
    return Recording(timeline, camera, scenes.motion)


def draw_recording(
    scenes: SceneSettings, camera: CameraSettings, rng: np.random.Generator
) -> Recording:
    """Draw how one sequence is recorded.

    Every call takes the same draws from `rng`, whichever settings vary. Frames follow one another
    as fast as in all others: with more steps a frame the spike camera is faster. Speeds stay, too,
    so that the blur is as long as the exposure.
    """
    vary, usual = scenes.vary, same_for_all(scenes, camera)
    if vary is None:
        return usual
    threshold, noise, pace, share, place, instant = rng.random(6)
    steps = _whole(vary.steps_per_frame, pace) or scenes.steps_per_frame
    changes: dict[str, float] = {"rate_hz": camera.rate_hz * steps / scenes.steps_per_frame}
    if vary.threshold is not None:
        changes["threshold"] = round(_between(vary.threshold, threshold), 3)
    if vary.noise is not None:
        changes["noise"] = round(_between(vary.noise, noise), 4)
    usual_share = scenes.exposure_steps / scenes.steps_per_frame
    drawn_share = usual_share if vary.exposure is None else _between(vary.exposure, share)
    exposure = max(1, round(drawn_share * steps))
    start = 0 if vary.exposure is None else int(place * (steps - exposure + 1))
    target = _target(exposure, MIDDLE if vary.target is None else _between(vary.target, instant))
    timeline = Timeline(steps, (start, start + exposure), start + target)
    longer = exposure / steps / usual_share
    motion = (scenes.motion[0] * longer, scenes.motion[1] * longer)
    return Recording(timeline, camera.model_copy(update=changes), motion)


def _target(exposure: int, share: float) -> int:
    """Return the whole step next to a share of the exposure, the earlier one of two."""
    return math.ceil(share * exposure - 0.5)


def _between(limits: tuple[float, float], share: float) -> float:
    low, high = limits
    return float(low + (high - low) * share)


def _whole(limits: tuple[int, int] | None, share: float) -> int | None:
    """Return a whole number of the closed range; each is equally likely."""
    return None if limits is None else limits[0] + int(share * (limits[1] - limits[0] + 1))
