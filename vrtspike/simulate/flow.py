"""Flow-based frame interpolation: light between two frames of a video, along their motion.

In: two consecutive frames, uint8. Out: float32 RGB in [0, 1] at any share t in (0, 1) of the way.

The motion comes from optical flow in both directions (iterative Lucas-Kanade of scikit-image, on
gray, at most `FLOW_PIXELS` large). Jiang et al., "Super SloMo", 2018, eq. 4, approximates the flow
from the instant t to both frames; each frame is sampled there, bilinearly:

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

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from skimage.registration import optical_flow_ilk
from torch import Tensor

from vrtspike.data.gray import gray_on_grid

Image = UInt8[np.ndarray, "h w 3"]
FLOW_PIXELS = 1 << 18
"""Most pixels of the grid on which flow is computed; larger frames are reduced."""
TOLERANCE = 4.0
"""Pixels of inconsistency at which a frame's weight falls to 1 / e."""
DOUBT = 0.02
"""Weight of the linear mixture."""


class FlowInterpolation:
    """Two frames and the motion between them."""

    def __init__(self, first: Image, second: Image) -> None:
        pair = np.stack([first, second])
        flows = np.stack([optical_flow(first, second), optical_flow(second, first)])
        self._frames = torch.from_numpy(pair).movedim(-1, 1).contiguous() / 255
        self._flows = torch.from_numpy(flows)

    def at(self, share: float) -> Float[np.ndarray, "h w 3"]:
        """Return the light at a share in (0, 1) of the way from the first frame to the second."""
        t = float(share)
        with torch.inference_mode():
            forward, backward = self._flows
            away = torch.stack(
                [
                    t * t * backward - (1 - t) * t * forward,
                    (1 - t) ** 2 * forward - t * (1 - t) * backward,
                ]
            )
            landed = _sample(torch.cat([self._frames, self._flows], dim=1), away)
            mixture = (1 - t) * self._frames[0] + t * self._frames[1]
            light, weight = DOUBT * mixture, torch.full_like(mixture[:1], DOUBT)
            for to, found, near in zip(away, landed, (1 - t, t), strict=True):
                astray = (to + (1 - near) * found[3:]).square().sum(dim=0, keepdim=True)
                trust = near * torch.exp(-astray / TOLERANCE**2)
                light += trust * found[:3]
                weight += trust
            return np.ascontiguousarray((light / weight).clamp_(0, 1).movedim(0, -1).numpy())


def optical_flow(first: Image, second: Image) -> Float[np.ndarray, "2 h w"]:
    """Return where each pixel of the first frame is in the second, relative to itself."""
    height, width = first.shape[:2]
    factor = math.ceil(math.sqrt(height * width / FLOW_PIXELS))
    grid = (math.ceil(height / factor), math.ceil(width / factor))
    grays = [gray_on_grid(frame, *grid) for frame in (first, second)]
    rows, columns = optical_flow_ilk(*grays)  # type: ignore[no-untyped-call]
    flow = np.stack([columns * (width / grid[1]), rows * (height / grid[0])]).astype(np.float32)
    if factor == 1:
        return flow
    coarse = torch.from_numpy(flow)[None]
    return np.asarray(F.interpolate(coarse, size=(height, width), mode="bilinear")[0].numpy())


def _sample(values: Tensor, away: Tensor) -> Tensor:
    """Sample `(n, c, h, w)` bilinearly at each pixel + `away` `(n, 2, h, w)`; edges extend."""
    height, width = values.shape[-2:]
    x = torch.arange(width, dtype=torch.float32)
    y = torch.arange(height, dtype=torch.float32)[:, None]
    grid = torch.stack(
        [(2 * (x + away[:, 0]) + 1) / width - 1, (2 * (y + away[:, 1]) + 1) / height - 1], dim=-1
    )
    return F.grid_sample(values, grid, padding_mode="border", align_corners=False)
