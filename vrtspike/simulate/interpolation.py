"""Flow-based frame interpolation: light between two frames of a video, along their motion.

In: two consecutive frames, uint8. Out: float32 RGB in [0, 1] at any share t in (0, 1) of the way.

The motion is optical flow in both directions: DIS (Kroeger et al., "Fast Optical Flow using Dense
Inverse Search", ECCV 2016) of OpenCV, on gray. Jiang et al., "Super SloMo", 2018, eq. 4,
approximates the flow from the instant t to both frames; each frame is sampled there, bicubically:

    F_t0 = -(1 - t) t F_01 + t^2 F_10        F_t1 = (1 - t)^2 F_01 - t (1 - t) F_10

A frame is trusted at a pixel if the flow found where the pixel lands leads back to it, forward and
backward being consistent (the paper learns this visibility instead):

    V_0 = exp(-|F_t0 + t F_01(x + F_t0)|^2 / TOLERANCE^2), V_1 alike with F_t1 and (1 - t) F_10
    light = ((1 - t) V_0 I_0(x + F_t0) + t V_1 I_1(x + F_t1) + DOUBT ((1 - t) I_0 + t I_1))
            / ((1 - t) V_0 + t V_1 + DOUBT)

so where neither frame is trusted the light is the linear mixture, and at t = 0 and 1 the frames.
Flow channels are x, y in pixels.
"""

from __future__ import annotations

import os

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Image = UInt8[np.ndarray, "h w 3"]
Field = Float[np.ndarray, "h w 2"]
PATCH_STRIDE = 2
"""Pixels from a patch of DIS to the next one: its preset "medium" has 3, which is less exact."""
LEAST_SIDE = 32
"""Smaller frames are extended for DIS, which crashes below 16 pixels."""
TOLERANCE = 8.0
"""Pixels of inconsistency at which a frame's weight falls to 1 / e."""
DOUBT = 0.02
"""Weight of the linear mixture."""
ROWS = 16
"""Rows that are computed at once: whole frames leave the caches and take twice as long."""
NO_MAP = np.empty(0, np.float32)
"""Places are given as one array, not as two."""

# Ray tells a task by this variable how many cores it has; OpenCV would take all of them.
cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))


class FlowInterpolation:
    """Two frames and the motion between them."""

    def __init__(self, first: Image, second: Image) -> None:
        self._frames = [frame * np.float32(1 / 255) for frame in (first, second)]
        self._flows = [dense_flow(first, second), dense_flow(second, first)]
        self._places = _places(*first.shape[:2])

    def at(self, share: float) -> Float[np.ndarray, "h w 3"]:
        """Return the light at a share in (0, 1) of the way from the first frame to the second."""
        light = np.empty_like(self._frames[0])
        for top in range(0, len(light), ROWS):
            self._fill(light[top : top + ROWS], top, np.float32(share))
        return light

    def _fill(self, light: Float[np.ndarray, "h w 3"], top: int, t: np.float32) -> None:
        """Write some rows of the light."""
        rest, rows = 1 - t, slice(top, top + len(light))
        forward, backward = (flow[rows] for flow in self._flows)
        places = self._places[rows]
        ways = (
            t * t * backward - rest * t * forward,
            rest * rest * forward - t * rest * backward,
        )
        light[:] = np.float32(DOUBT) * (rest * self._frames[0][rows] + t * self._frames[1][rows])
        weight = np.full_like(light, DOUBT)
        for away, frame, flow, far in zip(ways, self._frames, self._flows, (t, rest), strict=True):
            landed = places + away
            astray = away + far * _sample(flow, landed)
            squared = astray[..., 0] ** 2 + astray[..., 1] ** 2
            trust = (1 - far) * np.exp(squared * np.float32(-1 / TOLERANCE**2))
            trusts = cv2.merge((trust, trust, trust))  # many times faster than broadcasting
            light += trusts * _sample(frame, landed)
            weight += trusts
        light /= weight
        np.clip(light, 0, 1, out=light)


def dense_flow(first: Image, second: Image) -> Field:
    """Return where each pixel of the first frame is in the second, relative to itself."""
    height, width = first.shape[:2]
    more = [(0, max(0, LEAST_SIDE - side)) for side in (height, width)]
    grays = [
        np.pad(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), more, mode="edge")
        for frame in (first, second)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setPatchStride(PATCH_STRIDE)
    # Not an array to write to: a flow that is given is where the search starts from.
    flow = search.calc(*grays, None)  # type: ignore[call-overload]
    return np.asarray(flow, np.float32)[:height, :width]


def sample_at(values: Float[np.ndarray, "h w c"], flow: Field) -> Float[np.ndarray, "h w c"]:
    """Sample bicubically at each pixel + `flow`; edges extend."""
    return _sample(values, _places(*flow.shape[:2]) + flow)


def _places(height: int, width: int) -> Field:
    """Return each pixel's x and y."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=-1)


def _sample(values: Float[np.ndarray, "h w c"], places: Field) -> Float[np.ndarray, "h w c"]:
    """Sample bicubically at places (x, y) in pixels; edges extend.

    OpenCV 5.0.0's bilinear sampling of one, three or four channels reads beyond the last column.
    """
    edge = cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(values, places, NO_MAP, cv2.INTER_CUBIC, borderMode=edge))
