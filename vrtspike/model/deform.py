"""Flow-guided modulated deformable alignment of neighbouring features.

In: the feature of a neighbouring frame `(n, c, h, w)`, the same warped by the flow, the feature of
the current frame, and the flow in pixels. Out: the neighbour aligned to the current frame
`(n, c, h, w)`. Each sampling offset is the flow plus a bounded residue,
offset = flow + max_residue * tanh(r), and a sigmoid mask weighs the sampled values (Liang et al.,
VRT, 2022, section 3.3; BasicVSR++).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.recompute import is_small, recompute
from vrtspike.model.warp import full_precision, pixel_grid

KERNEL = 3
TAPS = KERNEL * KERNEL
BLOCK_GATHERED = 2**22
"""Number of elements sampled at once on a CPU (16 MiB in float32), so that they fit the cache."""


class DeformableAlignment(nn.Module):
    """Align a neighbour by a 3x3 deformable convolution whose offsets follow the flow."""

    def __init__(
        self, channels: int, groups: int, max_residue: float, *, checkpoint: bool = True
    ) -> None:
        super().__init__()
        self.groups, self.max_residue, self.checkpoint = groups, max_residue, checkpoint
        self.weight = nn.Parameter(torch.empty(channels, channels, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = (channels * TAPS) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.conv_offset = nn.Sequential(
            nn.Conv2d(2 * channels + 2, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, 3 * TAPS * groups, 3, padding=1),
        )
        nn.init.zeros_(self.conv_offset[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_offset[-1].bias)  # type: ignore[arg-type]

    def forward(
        self,
        neighbour: Float[Tensor, "n c h w"],
        warped: Float[Tensor, "n c h w"],
        current: Float[Tensor, "n c h w"],
        flow: Float[Tensor, "n 2 h w"],
    ) -> Float[Tensor, "n c h w"]:
        """Return the neighbour's feature, aligned to the current frame."""
        x = torch.cat((warped, current, flow.to(current.dtype)), dim=1)
        raw = full_precision(self.conv_offset(x.contiguous(memory_format=torch.channels_last)))
        # The sampled values are nine times the feature: the backward pass recomputes them.
        gathered = neighbour.numel() * TAPS
        convolve = partial(
            recompute, self._convolve, wanted=self.checkpoint and not is_small(gathered)
        )
        if neighbour.is_cuda or gathered <= BLOCK_GATHERED:
            return convolve(neighbour, raw, flow)
        # A few images at a time, so that the sampled values stay in the cache of a CPU.
        images = max(1, len(neighbour) * BLOCK_GATHERED // gathered)
        parts = zip(*(torch.split(x, images) for x in (neighbour, raw, flow)), strict=True)
        return torch.cat([convolve(*part) for part in parts])

    def _convolve(self, neighbour: Tensor, raw: Tensor, flow: Tensor) -> Tensor:
        """Convolve; `raw` `(n, 27 * groups, h, w)` holds the residues, then the mask's logits."""
        offsets = 2 * TAPS * self.groups
        residue, mask = raw[:, :offsets], raw[:, offsets:]
        residue = rearrange(residue, "n (k two) h w -> n k two h w", two=2)
        offset = torch.add(flow.flip(1)[:, None], residue.tanh(), alpha=self.max_residue)
        convolve = sampled_deform_conv2d
        if neighbour.is_cuda:
            from torchvision.ops import deform_conv2d  # takes a second; only a GPU needs it

            convolve = deform_conv2d
        return convolve(
            neighbour, offset.flatten(1, 2), self.weight, self.bias, padding=1, mask=mask.sigmoid()
        )


def sampled_deform_conv2d(
    x: Float[Tensor, "n c h w"],
    offset: Float[Tensor, "n gk2 h w"],
    weight: Float[Tensor, "o c 3 3"],
    bias: Float[Tensor, " o"],
    *,
    padding: int,
    mask: Float[Tensor, "n gk h w"],
) -> Float[Tensor, "n o h w"]:
    """Compute `torchvision.ops.deform_conv2d` (3x3, stride 1) with grid_sample and a product.

    The result is that of torchvision. On a CPU this is several times faster, above all in the
    backward pass.
    """
    groups, height = mask.shape[1] // TAPS, x.shape[-2]
    grid = _sampling_grid(offset, groups, padding)
    # The image is transposed, because the offsets are (y, x), and grid_sample takes (x, y).
    sampled = F.grid_sample(
        rearrange(x, "n (g c) h w -> (n g) c w h", g=groups),
        grid.to(x.dtype),
        padding_mode="zeros",
        align_corners=True,
    )
    modulation = rearrange(mask.to(x.dtype), "n (g k) h w -> (n g) 1 (k h) w", g=groups)
    sampled = rearrange(
        sampled * modulation, "(n g) c (k h) w -> n (g c k) (h w)", g=groups, k=TAPS
    )
    kernel = weight.flatten(1).expand(len(x), -1, -1)
    out = torch.baddbmm(bias[:, None], kernel, sampled)
    return rearrange(out, "n o (h w) -> n o h w", h=height)


def _sampling_grid(offset: Tensor, groups: int, padding: int) -> Tensor:
    """Return the sampling position of each tap, `(n * g, k * h, w, 2)` in [-1, 1], y before x."""
    height, width = offset.shape[-2:]
    step, pixels = pixel_grid(height, width, offset.device, offset.dtype)
    step, pixels = step.flip(0), pixels.flip(0)
    taps = torch.arange(KERNEL, device=offset.device, dtype=offset.dtype) - padding
    taps = torch.stack(torch.meshgrid(taps, taps, indexing="ij"), dim=-1)
    positions = pixels + rearrange(taps, "i j two -> (i j) two 1 1") * step
    offset = rearrange(offset, "n (g k two) h w -> n g k two h w", g=groups, k=TAPS)
    grid = torch.addcmul(positions, offset, step)
    return rearrange(grid, "n g k two h w -> (n g) (k h) w two")
