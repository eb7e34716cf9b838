"""How far found motion is from the true one: end-point errors at all scales of the flow network.

In: flows `(n, 2, h/s, w/s)` in pixels of their own scale, finest first; the true flow in pixels of
the finest of them, NaN where it is not known: such pixels do not count, nor do coarse ones that
hold any. Where it is coarser than the frames, finer scales have no error (NaN). The end-point error
is that of Ranjan and Black (CVPR 2017), who train one level after the other; here all levels that
are there learn at once, as in FlowNet (Dosovitskiy et al., ICCV 2015):

    epe_s = mean sqrt(|f_s - true_s|^2 + eps^2)      true_s: mean over s x s pixels, over s
    loss  = sum over s of epe_s / s

The finest scale counts most; coarse ones learn through it, too, being where it starts from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SCALES = (1, 2, 4, 8)
EPS = 1e-2
"""Where the error turns from quadratic to linear (pixels)."""


def end_point_error(
    found: Float[Tensor, "n 2 h w"], true: Float[Tensor, "n 2 h w"], eps: float = 0.0
) -> Float[Tensor, "n h w"]:
    """Return the distance of each pixel's found and true end points, in pixels."""
    return ((found - true).square().sum(dim=1) + eps**2).sqrt()


def mean_known_error(
    found: Float[Tensor, "n 2 h w"], true: Float[Tensor, "n 2 h w"], eps: float = 0.0
) -> Float[Tensor, ""]:
    """Return the mean end-point error where the true flow is known; 0 where it nowhere is."""
    known = true.isfinite().all(dim=1)
    error = end_point_error(found, true.nan_to_num(), eps)
    return (error * known).sum() / known.sum().clamp(min=1)


def at_scale(flow: Float[Tensor, "n 2 h w"], scale: int) -> Tensor:
    """Average a flow down to a coarser grid, in pixels of that grid."""
    return F.avg_pool2d(flow, scale) / scale


class FlowLoss(nn.Module):
    """The weighted sum over scales."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = {f"epe_{scale}": 1.0 / scale for scale in SCALES}

    def forward(
        self, found: Sequence[Tensor], true: Float[Tensor, "n 2 h w"]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the weighted sum and every scale's error before its weight, in its own pixels."""
        terms = {name: true.new_full((), torch.nan) for name in self.weights}
        present = list(self.weights)[len(SCALES) - len(found) :]
        with torch.autocast(true.device.type, enabled=False):
            for name, scale, flow in zip(present, SCALES, found, strict=False):
                terms[name] = mean_known_error(flow.float(), at_scale(true, scale), EPS)
        return torch.stack([self.weights[name] * terms[name] for name in present]).sum(), terms
