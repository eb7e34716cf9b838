"""Flow-guided modulated deformable alignment of neighbouring features.

In: the neighbour's feature `(n, c, h, w)`, its flow-warped version, the current feature and the
flow. Out: the neighbour aligned to the current frame `(n, c, h, w)`. Offsets are the flow plus a
bounded residue: offset = max_residue * tanh(r) + flow; the sampled values are modulated by a
sigmoid mask (Liang et al., VRT, 2022, section 3.3; BasicVSR++).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.recompute import recompute
from vrtspike.model.warp import full_precision, normalized_grid

KERNEL = 3
TAPS = KERNEL * KERNEL


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
        """Return the neighbour seen from the current frame."""
        x = torch.cat((warped, current, flow.to(current.dtype)), dim=1)
        raw = full_precision(self.conv_offset(x.contiguous(memory_format=torch.channels_last)))
        # Offsets and what they gather are nine times the feature: made again rather than kept.
        wanted = self.checkpoint
        if neighbour.is_cuda:
            return recompute(self._convolve, neighbour, raw, flow, wanted=wanted)
        # Image by image, because what is gathered then stays in a CPU's cache.
        parts = zip(*(torch.split(x, 1) for x in (neighbour, raw, flow)), strict=True)
        return torch.cat([recompute(self._convolve, *part, wanted=wanted) for part in parts])

    def _convolve(self, neighbour: Tensor, raw: Tensor, flow: Tensor) -> Tensor:
        """Convolve at the offsets and with the mask that `raw` holds, `(n, 27 * groups, h, w)`."""
        residue, mask = raw[:, : 2 * TAPS * self.groups], raw[:, 2 * TAPS * self.groups :]
        offset = self.max_residue * torch.tanh(residue)
        offset = offset + repeat(flow.flip(1), "n two h w -> n (k two) h w", k=TAPS * self.groups)
        convolve = sampled_deform_conv2d
        if neighbour.is_cuda:
            from torchvision.ops import deform_conv2d  # a second of import that CPUs need not pay

            convolve = deform_conv2d
        return convolve(neighbour, offset, self.weight, self.bias, padding=1, mask=mask.sigmoid())


def sampled_deform_conv2d(
    x: Float[Tensor, "n c h w"],
    offset: Float[Tensor, "n gk2 h w"],
    weight: Float[Tensor, "o c 3 3"],
    bias: Float[Tensor, " o"],
    *,
    padding: int,
    mask: Float[Tensor, "n gk h w"],
) -> Float[Tensor, "n o h w"]:
    """Compute `torchvision.ops.deform_conv2d` (3x3, stride 1) by grid_sample and a product.

    On a CPU this is several times faster, backward above all, than torchvision's kernel, which is
    the reference.
    """
    groups, (height, width) = mask.shape[1] // TAPS, x.shape[-2:]
    taps = torch.arange(KERNEL, device=x.device) - padding
    y = torch.arange(height, device=x.device)[:, None]
    rows = repeat(taps, "i -> (i j) 1 1", j=KERNEL) + y
    columns = repeat(taps, "j -> (i j) 1 1", i=KERNEL) + torch.arange(width, device=x.device)
    kernel = weight.flatten(1)
    images = []
    for image, image_offset, image_mask in zip(x, offset, mask, strict=True):
        dy, dx = rearrange(image_offset, "(g k two) h w -> two g k h w", k=TAPS, two=2)
        grid = normalized_grid(dx + columns, dy + rows, height, width)
        sampled = F.grid_sample(
            rearrange(image, "(g c) h w -> g c h w", g=groups),
            rearrange(grid, "g k h w two -> g (k h) w two").to(x.dtype),
            padding_mode="zeros",
            align_corners=True,
        )
        modulation = rearrange(image_mask.to(x.dtype), "(g k) h w -> g 1 (k h) w", g=groups)
        sampled = rearrange(sampled * modulation, "g c (k h) w -> (g c k) (h w)", k=TAPS)
        images.append(torch.addmm(bias[:, None], kernel, sampled))
    return rearrange(images, "n o (h w) -> n o h w", h=height)
