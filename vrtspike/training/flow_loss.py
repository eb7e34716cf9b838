"""The loss of the flow network: end-point errors at all its scales.

In: estimated flows `(n, 2, h/s, w/s)` in pixels of their own scale, finest first, and the true flow
in pixels of the finest of them. The true flow is NaN where it is unknown: those pixels do not
count, nor do coarse pixels that contain one of them. If the true flow is coarser than the frames,
finer scales have no error (NaN). The end-point error is that of Ranjan and Black (CVPR 2017), who
train one level after the other; here all levels learn at once, as in FlowNet (Dosovitskiy et al.,
ICCV 2015):

    epe_s  = mean sqrt(|f_s - true_s|^2 + eps^2)
    true_s = mean of the true flow over s x s pixels, divided by s
    loss   = sum over s of epe_s / s

The finest scale has the largest weight. Coarse scales also learn through it, because it starts from
their flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SCALES = (1, 2, 4, 8)
EPS = 1e-2
"""Error (pixels) at which the loss changes from quadratic to linear."""


def end_point_error(
    estimated: Float[Tensor, "n 2 h w"], true: Float[Tensor, "n 2 h w"], eps: float = 0.0
) -> Float[Tensor, "n h w"]:
    """Return the distance between the estimated and the true end point of each pixel (pixels)."""
    return ((estimated - true).square().sum(dim=1) + eps**2).sqrt()


def mean_known_error(
    estimated: Float[Tensor, "n 2 h w"], true: Float[Tensor, "n 2 h w"], eps: float = 0.0
) -> Float[Tensor, ""]:
    """Return the mean end-point error over pixels of known true flow; 0 if there are none."""
    known = true.isfinite().all(dim=1)
    error = end_point_error(estimated, true.nan_to_num(), eps)
    return (error * known).sum() / known.sum().clamp(min=1)


def at_scale(flow: Float[Tensor, "n 2 h w"], scale: int) -> Tensor:
    """Reduce a flow `(n, 2, h, w)` to `(n, 2, h/scale, w/scale)`, in pixels of the coarser grid."""
    return F.avg_pool2d(flow, scale) / scale


class FlowLoss(nn.Module):
    """The sum of the end-point errors over scales, weighted by 1 / scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = {f"epe_{scale}": 1.0 / scale for scale in SCALES}

    def forward(
        self, estimated: Sequence[Tensor], true: Float[Tensor, "n 2 h w"]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the weighted sum, and each scale's unweighted error in pixels of that scale.

        `estimated` holds the estimated flows `(n, 2, h/s, w/s)` of the coarsest scales that are
        trained, finest first; `true` has the size of the first of them.
        """
        terms = {name: true.new_full((), torch.nan) for name in self.weights}
        present = list(self.weights)[len(SCALES) - len(estimated) :]
        with torch.autocast(true.device.type, enabled=False):
            for name, scale, flow in zip(present, SCALES, estimated, strict=False):
                terms[name] = mean_known_error(flow.float(), at_scale(true, scale), EPS)
        return torch.stack([self.weights[name] * terms[name] for name in present]).sum(), terms
