"""Validation on whole frames, spread over all ranks.

Every rank restores the same number of clips, because a sharded model needs all ranks for each
forward pass; a rank that has run out repeats the last clip and does not count it. PSNR and SSIM are
means over all frames, on 8-bit RGB, and do not depend on the number of ranks.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vrtspike.data.samples import SampleReader
from vrtspike.metrics import psnr, ssim, to_uint8
from vrtspike.training.step import VoxelScale, to_device


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
) -> Score:
    """Restore all samples of a split and score them; the model is left in training mode."""
    rank, world = dist.get_rank(), dist.get_world_size()
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    model.eval()
    for turn in range(-(-samples // world)):
        index = turn * world + rank
        blurred, sharp, spikes = to_device(reader.whole(min(index, samples - 1)), device, voxels)
        with autocast:
            restored = model(blurred, spikes)
        if index < samples:
            wanted, found = to_uint8(sharp), to_uint8(restored)
            scores = (psnr(found, wanted), ssim(found, wanted), psnr(to_uint8(blurred), wanted))
            sums += torch.stack([s.sum() for s in scores] + [sums.new_tensor(scores[0].numel())])
    model.train()
    dist.all_reduce(sums)
    total_psnr, total_ssim, total_blurred, frames = sums.tolist()
    return Score(total_psnr / frames, total_ssim / frames, total_blurred / frames)
