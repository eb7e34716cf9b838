"""One frame's exposure: the blurred frame, the sharp one and the spikes, from light at any instant.

In: a function that renders instants (steps of the whole recording) as gamma-encoded RGB float32
`(n, h, w, 3)` in [0, 1]. Out, for the frame that starts at step f:

    blurred = mean of the light at f + s + 0.5 over the steps s of the exposure   (uint8)
    sharp   = the light at the instant f + target_step                            (uint8)
    spikes  = the camera's answer to the light at f + s + 0.5, all s of the frame  (bool)

What the spike camera's pixels see of the RGB, and in which light the mean is taken, the optics say
(`vrtspike.spikes.optics`): gray and gamma-encoded values unless set. Only the spikes of a frame
are ever held for all of its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray

from vrtspike.simulate.camera import SpikeCamera
from vrtspike.spikes.optics import Optics
from vrtspike.spikes.timeline import Timeline

Render = Callable[[NDArray[np.float64]], Float[np.ndarray, "n h w 3"]]
PIXELS_AT_ONCE = 1 << 18
PUBLISHED = Optics()
"""Gray, gamma-encoded, of the frame's resolution."""


@dataclass(frozen=True)
class ExposedFrame:
    """What the two cameras record of one frame, and what was there."""

    blurred: UInt8[np.ndarray, "h w 3"]
    sharp: UInt8[np.ndarray, "h w 3"]
    spikes: Bool[np.ndarray, "s hs ws"]


def expose_frames(
    render: Render,
    camera: SpikeCamera,
    timeline: Timeline,
    *,
    frames: int,
    optics: Optics = PUBLISHED,
) -> Iterator[ExposedFrame]:
    """Record consecutive frames; the spike camera runs on through exposures and dead time."""
    for frame in range(frames):
        yield expose_frame(render, camera, timeline, frame * timeline.steps_per_frame, optics)


def expose_frame(
    render: Render,
    camera: SpikeCamera,
    timeline: Timeline,
    first_step: int,
    optics: Optics = PUBLISHED,
) -> ExposedFrame:
    """Record the frame that starts at `first_step`, a few instants in memory at a time."""
    sharp = render(np.array([first_step + timeline.target_step], np.float64))[0]
    total = np.zeros(sharp.shape, np.float64)
    spikes = np.empty((timeline.steps_per_frame, *camera.charge.shape), np.bool_)
    piece = max(1, PIXELS_AT_ONCE // (sharp.shape[0] * sharp.shape[1]))
    e0, e1 = timeline.exposure
    for start in range(0, timeline.steps_per_frame, piece):
        stop = min(start + piece, timeline.steps_per_frame)
        light = render(first_step + np.arange(start, stop) + 0.5)
        exposed = light[max(e0 - start, 0) : max(e1 - start, 0)]
        total += optics.to_blur(exposed).sum(axis=0)
        spikes[start:stop] = camera.expose(optics.at_pixels(light))
    return ExposedFrame(
        blurred=to_uint8(optics.from_blur(total / timeline.exposure_steps)),
        sharp=to_uint8(sharp),
        spikes=spikes,
    )


def to_uint8(image: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Round [0, 1] to 8 bits."""
    return np.rint(image * 255.0).clip(0, 255).astype(np.uint8)
