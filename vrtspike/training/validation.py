"""Validation on whole frames, spread over all ranks.

Every rank restores the same number of clips, because a sharded model needs all ranks for each
forward pass; a rank that has run out repeats the last clip and does not count it. PSNR and SSIM are
means over all frames, on 8-bit RGB, and do not depend on the number of ranks. Rank 0 also keeps a
picture to look at: the middle frame of the first sample, blurred | restored | sharp.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from vrtspike.data.samples import SampleReader
from vrtspike.metrics import psnr, ssim, to_uint8
from vrtspike.training.step import VoxelScale, to_device

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """Means over all validation frames; PSNR in dB."""

    psnr: float
    ssim: float
    blurred_psnr: float


@torch.no_grad()
def validate(
    model: nn.Module,
    reader: SampleReader,
    samples: int,
    *,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    voxels: VoxelScale | None,
    alive: Callable[[], None] | None = None,
) -> tuple[Score, Picture | None]:
    """Restore all samples of a split and score them; the model is left in training mode.

    The picture (h, 3 w, 3) is there on rank 0 alone. `alive` is called after each clip.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    # One row a sample, so that the order of summation does not depend on the ranks either.
    sums = torch.zeros(samples, 4, dtype=torch.float64, device=device)
    picture: Picture | None = None
    model.eval()
    for turn in range(-(-samples // world)):
        index = turn * world + rank
        blurred, sharp, spikes = to_device(reader.whole(min(index, samples - 1)), device, voxels)
        with autocast:
            restored = model(blurred, spikes)
        given, found, wanted = (to_uint8(frames) for frames in (blurred, restored, sharp))
        if index == 0:
            picture = _picture(given, found, wanted)
        if index < samples:
            scores = (psnr(found, wanted), ssim(found, wanted), psnr(given, wanted))
            sums[index, :3] = torch.stack([score.sum() for score in scores])
            sums[index, 3] = scores[0].numel()
        if alive is not None:
            alive()
    model.train()
    dist.all_reduce(sums)
    total_psnr, total_ssim, total_blurred, frames = sums.sum(dim=0).tolist()
    return Score(total_psnr / frames, total_ssim / frames, total_blurred / frames), picture


def _picture(*clips: Tensor) -> Picture:
    """Put the middle frames of clips (1, t, 3, h, w) side by side."""
    side_by_side = torch.cat([clip[0, clip.shape[1] // 2] for clip in clips], dim=-1)
    pixels: Picture = rearrange(side_by_side, "c h w -> h w c").cpu().numpy()
    return pixels
