"""Expose one frame: compute its blurred frame, sharp frame and spikes from a continuous scene.

In: a function that renders the light at given instants (in steps of the recording) as gamma-encoded
RGB float32 `(n, h, w, 3)` in [0, 1]. Out, for the frame that starts at step f:

    blurred = mean of the light at f + s + 0.5 over the steps s of the exposure     (uint8)
    sharp   = the light at the instant f + target_step                              (uint8)
    spikes  = output of the camera for the light at f + s + 0.5, all s of the frame  (bool)

The optics (`vrtspike.spikes.optics`) decide what the spike pixels see of the RGB, and whether the
mean is over linear or gamma-encoded light; the default is gray and gamma-encoded. The light is
rendered a few steps at a time; only the spikes of all steps of a frame are in memory together.
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
"""Optics of the published datasets: gray, gamma-encoded, spike pixels of the frame's resolution."""


@dataclass(frozen=True)
class ExposedFrame:
    """The blurred frame and the spikes that the cameras record, and the sharp ground truth."""

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
    """Record consecutive frames; the spike camera also runs between exposures."""
    for frame in range(frames):
        yield expose_frame(render, camera, timeline, frame * timeline.steps_per_frame, optics)


def expose_frame(
    render: Render,
    camera: SpikeCamera,
    timeline: Timeline,
    first_step: int,
    optics: Optics = PUBLISHED,
) -> ExposedFrame:
    """Record the frame that starts at `first_step`."""
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
    """Convert values in [0, 1] to 8 bits, with rounding."""
    return np.rint(image * 255.0).clip(0, 255).astype(np.uint8)
