"""Flow-based frame interpolation between two frames of a video.

In: two consecutive frames, uint8 `(h, w, 3)`. Out: float32 RGB in [0, 1] at any time t in (0, 1)
between them.

The motion is optical flow in both directions: DIS (Kroeger et al., "Fast Optical Flow using Dense
Inverse Search", ECCV 2016) of OpenCV, on gray. Jiang et al., "Super SloMo", 2018, eq. 4,
approximates the flow from time t to both frames; each frame is sampled bicubically along it:

    F_t0 = -(1 - t) t F_01 + t^2 F_10        F_t1 = (1 - t)^2 F_01 - t (1 - t) F_10

A frame gets a high weight V at a pixel if forward and backward flow are consistent there, that is,
if the flow at the sampled point leads back to the pixel (the paper learns this visibility instead):

    V_0 = exp(-|F_t0 + t F_01(x + F_t0)|^2 / TOLERANCE^2), V_1 the same with F_t1 and (1 - t) F_10
    light = ((1 - t) V_0 I_0(x + F_t0) + t V_1 I_1(x + F_t1) + DOUBT ((1 - t) I_0 + t I_1))
            / ((1 - t) V_0 + t V_1 + DOUBT)

Where both weights are low, this is the linear mixture of the frames; at t = 0 and t = 1 it is the
frame itself. Flow channels are x, y in pixels.
"""

from __future__ import annotations

import os

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Image = UInt8[np.ndarray, "h w 3"]
Field = Float[np.ndarray, "h w 2"]
PATCH_STRIDE = 2
"""Distance in pixels between patches of DIS; its preset "medium" has 3, which is less exact."""
LEAST_SIDE = 32
"""Frames with a shorter side in pixels are padded for DIS, which crashes below 16 pixels."""
TOLERANCE = 8.0
"""Inconsistency of the flow, in pixels, at which the weight of a frame falls to 1 / e."""
DOUBT = 0.02
"""Weight of the linear mixture."""
ROWS = 16
"""Number of rows computed at once: whole frames exceed the caches and take twice as long."""
NO_MAP = np.empty(0, np.float32)
"""Second argument of `cv2.remap`, empty because the positions are one array of x and y."""

# Ray sets this variable to the number of cores of a task; OpenCV would use all cores.
cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))


class FlowInterpolation:
    """Two frames and the motion between them."""

    def __init__(self, first: Image, second: Image) -> None:
        self._frames = [frame * np.float32(1 / 255) for frame in (first, second)]
        self._flows = [dense_flow(first, second), dense_flow(second, first)]
        self._pixels = _pixel_grid(*first.shape[:2])

    def at(self, share: float) -> Float[np.ndarray, "h w 3"]:
        """Return the light at a time in (0, 1) between the first frame and the second."""
        light = np.empty_like(self._frames[0])
        for top in range(0, len(light), ROWS):
            self._fill(light[top : top + ROWS], top, np.float32(share))
        return light

    def _fill(self, light: Float[np.ndarray, "h w 3"], top: int, t: np.float32) -> None:
        """Write `ROWS` rows of `light`, starting at `top`."""
        u, rows = 1 - t, slice(top, top + len(light))
        forward, backward = (flow[rows] for flow in self._flows)
        pixels = self._pixels[rows]
        flows_from_t = (
            t * t * backward - u * t * forward,
            u * u * forward - t * u * backward,
        )
        light[:] = np.float32(DOUBT) * (u * self._frames[0][rows] + t * self._frames[1][rows])
        weight = np.full_like(light, DOUBT)
        for flow_from_t, frame, flow, distance in zip(
            flows_from_t, self._frames, self._flows, (t, u), strict=True
        ):
            sampled_at = pixels + flow_from_t
            error = flow_from_t + distance * _sample(flow, sampled_at)
            squared = error[..., 0] ** 2 + error[..., 1] ** 2
            visibility = (1 - distance) * np.exp(squared * np.float32(-1 / TOLERANCE**2))
            visibilities = cv2.merge(
                (visibility, visibility, visibility)
            )  # many times faster than broadcasting
            light += visibilities * _sample(frame, sampled_at)
            weight += visibilities
        light /= weight
        np.clip(light, 0, 1, out=light)


def dense_flow(first: Image, second: Image) -> Field:
    """Return the DIS flow from the first frame to the second, `(h, w, 2)` as x, y in pixels."""
    height, width = first.shape[:2]
    padding = [(0, max(0, LEAST_SIDE - side)) for side in (height, width)]
    grays = [
        np.pad(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), padding, mode="edge")
        for frame in (first, second)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setPatchStride(PATCH_STRIDE)
    # None, because DIS would take an array given here as the start of its search.
    flow = search.calc(*grays, None)  # type: ignore[call-overload]
    return np.asarray(flow, np.float32)[:height, :width]


def sample_at(values: Float[np.ndarray, "h w c"], flow: Field) -> Float[np.ndarray, "h w c"]:
    """Sample bicubically at each pixel + `flow`; beyond the edges, edge pixels repeat."""
    return _sample(values, _pixel_grid(*flow.shape[:2]) + flow)


def _pixel_grid(height: int, width: int) -> Field:
    """Return the position of each pixel, `(h, w, 2)` as x, y."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=-1)


def _sample(values: Float[np.ndarray, "h w c"], positions: Field) -> Float[np.ndarray, "h w c"]:
    """Sample bicubically at positions (x, y) in pixels; beyond the edges, edge pixels repeat.

    Not bilinearly, because OpenCV 5.0.0 then reads beyond the last column for one, three or four
    channels.
    """
    edge = cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(values, positions, NO_MAP, cv2.INTER_CUBIC, borderMode=edge))
