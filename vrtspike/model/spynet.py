"""SpyNet: optical flow from coarse to fine.

In: two batches of RGB frames `(n, 3, h, w)` in [0, 1]. Out: flows `(n, 2, h/s, w/s)` in pixels of
their own scale for s = 1, 2, 4, 8, finest first; a flow warps the second frame to the first.
Each of six pyramid levels upsamples the flow of the coarser level and adds a residual to it
(Ranjan and Black, Optical Flow Estimation using a Spatial Pyramid Network, CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.warp import flow_warp

LEVELS = 6
OUTPUT_LEVELS = (5, 4, 3, 2)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FlowLevel(nn.Module):
    """Predict the residual flow of one pyramid level from [reference, warped, flow]."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        widths = (8, *channels, 2)
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 7, padding=3), nn.ReLU(inplace=True)]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "n 8 h w"]) -> Float[Tensor, "n 2 h w"]:
        """Return the residual flow."""
        flow: Tensor = self.basic_module(x)
        return flow


class SpyNet(nn.Module):
    """Estimate flow at four scales for a batch of frame pairs."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: tuple[int, int, int, int] = (32, 64, 32, 16), *, zero_init: bool = False
    ) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(FlowLevel(channels) for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        if zero_init:
            silence(self.basic_module)

    def forward(
        self,
        reference: Float[Tensor, "n 3 h w"],
        supporting: Float[Tensor, "n 3 h w"],
        *,
        scale: int = 1,
    ) -> list[Tensor]:
        """Return the flows reference -> supporting at scales 1, 1/2, 1/4, 1/8.

        `scale` (1, 2, 4, 8) says how many times the given frames were reduced. The finest levels of
        the pyramid are then left out, and the first flow has the scale of the given frames.
        """
        height, width = reference.shape[-2:]
        modules = list(self.basic_module)[: levels_at(scale)]
        unit = 2 ** (len(modules) - 1)
        padded = (-(-height // unit) * unit, -(-width // unit) * unit)
        pyramids = []
        for image in (reference, supporting):
            if padded != (height, width):
                image = F.interpolate(image, padded, mode="bilinear", align_corners=False)
            levels = [(image - self.mean) / self.std]
            for _ in range(len(modules) - 1):
                levels.insert(0, F.avg_pool2d(levels[0], 2))
            pyramids.append(levels)

        flow = reference.new_zeros(reference.shape[0], 2, *pyramids[0][0].shape[-2:])
        outputs: dict[int, Tensor] = {}
        for level, (module, ref, sup) in enumerate(zip(modules, *pyramids, strict=True)):
            if level:
                flow = F.interpolate(flow, ref.shape[-2:], mode="bilinear", align_corners=True) * 2
            flow = flow + module(torch.cat((ref, flow_warp(sup, flow, padding="border"), flow), 1))
            outputs[level] = flow
        return [
            _rescale(outputs[level], height >> i, width >> i)
            for i, level in enumerate(level for level in OUTPUT_LEVELS if level in outputs)
        ]


def levels_at(scale: int) -> int:
    """Return the number of pyramid levels for frames reduced `scale` (1, 2, 4, 8) times."""
    return LEVELS + 1 - scale.bit_length()


def silence(levels: Iterable[nn.Module]) -> None:
    """Set the last convolution of each level to zero, so that it does not change the flow."""
    for level in levels:
        for name, parameter in level.named_parameters():
            if name.startswith("basic_module.8."):
                nn.init.zeros_(parameter)


def _rescale(flow: Tensor, height: int, width: int) -> Tensor:
    """Resize a flow to `height` x `width`, and scale its vectors accordingly."""
    h, w = flow.shape[-2:]
    if (h, w) == (height, width):
        return flow
    flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor((width / w, height / h)).view(1, 2, 1, 1)
