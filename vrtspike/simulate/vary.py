"""Vary the cameras and their timing from one simulated sequence to the next.

In: the settings of all sequences, and the generator of one sequence. Out: its `Recording`. A model
that is trained with only one threshold, one exposure and one spike rate fails with other values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.spikes.timeline import Timeline

MIDDLE = 0.5
"""Instant of the sharp frame, as a fraction of the exposure, unless it varies."""


@dataclass(frozen=True)
class Recording:
    """The timing, the cameras and the motion of one sequence."""

    timeline: Timeline
    camera: CameraSettings
    motion: tuple[float, float]
    """Least and greatest length of the blur, in pixels per exposure."""


def same_for_all(scenes: SceneSettings, camera: CameraSettings) -> Recording:
    """Return the recording of a sequence without variation: exposures start with their frames."""
    exposure = scenes.exposure_steps
    timeline = Timeline(scenes.steps_per_frame, (0, exposure), _target(exposure, MIDDLE))
    return Recording(timeline, camera, scenes.motion)


def draw_recording(
    scenes: SceneSettings, camera: CameraSettings, rng: np.random.Generator
) -> Recording:
    """Draw the recording of one sequence.

    Every call draws the same random numbers, for any settings. The frame rate and the speed of
    motion do not vary: with more steps per frame the spike camera is faster, and the length of the
    blur is proportional to the exposure.
    """
    vary, usual = scenes.vary, same_for_all(scenes, camera)
    if vary is None:
        return usual
    threshold, noise, pace, share, offset, instant = rng.random(6)
    steps = _whole(vary.steps_per_frame, pace) or scenes.steps_per_frame
    changes: dict[str, float] = {"rate_hz": camera.rate_hz * steps / scenes.steps_per_frame}
    if vary.threshold is not None:
        changes["threshold"] = round(_between(vary.threshold, threshold), 3)
    if vary.noise is not None:
        changes["noise"] = round(_between(vary.noise, noise), 4)
    usual_share = scenes.exposure_steps / scenes.steps_per_frame
    drawn_share = usual_share if vary.exposure is None else _between(vary.exposure, share)
    exposure = max(1, round(drawn_share * steps))
    start = 0 if vary.exposure is None else int(offset * (steps - exposure + 1))
    target = _target(exposure, MIDDLE if vary.target is None else _between(vary.target, instant))
    timeline = Timeline(steps, (start, start + exposure), start + target)
    longer = exposure / steps / usual_share
    motion = (scenes.motion[0] * longer, scenes.motion[1] * longer)
    return Recording(timeline, camera.model_copy(update=changes), motion)


def _target(exposure: int, share: float) -> int:
    """Return the step nearest to a fraction of the exposure; of two, the earlier one."""
    return math.ceil(share * exposure - 0.5)


def _between(limits: tuple[float, float], share: float) -> float:
    low, high = limits
    return float(low + (high - low) * share)


def _whole(limits: tuple[int, int] | None, share: float) -> int | None:
    """Return the whole number in the closed range `limits` for a fraction in [0, 1)."""
    return None if limits is None else limits[0] + int(share * (limits[1] - limits[0] + 1))
