"""Validation on whole frames, divided over all ranks.

Every rank restores the same number of clips, because a sharded model needs all ranks for each
forward pass. A rank without a clip left repeats the last one and does not count it. PSNR and SSIM
are means over all frames, on 8-bit RGB, and do not depend on the number of ranks. Rank 0 also
returns a picture: the middle frame of the first sample, blurred | restored | sharp.
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

from vrtspike.metrics.image import psnr, ssim, to_uint8
from vrtspike.samples.reader import Reader
from vrtspike.training.step import to_device

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class ValidationScore:
    """Means over all validation frames; PSNR in dB, SSIM at most 1."""

    psnr: float
    ssim: float
    blurred_psnr: float
    guess_psnr: float | None = None
    """PSNR of the first guess; None if the model has none."""


@torch.no_grad()
def validate(
    model: nn.Module,
    reader: Reader,
    samples: int,
    *,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    guessed: bool = False,
    alive: Callable[[], None] | None = None,
) -> tuple[ValidationScore, Picture | None]:
    """Restore all samples of a split and score them; afterwards the model is in training mode.

    All ranks call it. Only rank 0 returns a picture, `(h, 3 w, 3)`. `guessed`: the model also
    returns its first guess. `alive` is called after each clip.
    """
    picture: Picture | None = None

    def score(index: int) -> list[float]:
        nonlocal picture
        blurred, sharp, voxels = to_device(reader.whole(index), device)
        with autocast:
            restored, guess = (
                model(blurred, voxels, True) if guessed else (model(blurred, voxels),) * 2
            )
        blurred, restored, sharp = (to_uint8(frames) for frames in (blurred, restored, sharp))
        if index == 0:
            picture = _picture(blurred, restored, sharp)
        scores = (
            psnr(restored, sharp),
            ssim(restored, sharp),
            psnr(blurred, sharp),
            psnr(to_uint8(guess), sharp),
        )
        return [*(float(score.sum()) for score in scores), scores[0].numel()]

    *sums, frames = sums_over(model, samples, 5, score, device=device, alive=alive)
    means = [total / frames for total in sums]
    if not guessed:
        means.pop()
    # If the split has one sample, other ranks repeat it and have a picture too.
    shown = picture if dist.get_rank() == 0 else None
    return ValidationScore(*means), shown


def sums_over(
    model: nn.Module,
    samples: int,
    columns: int,
    score: Callable[[int], list[float]],
    *,
    device: torch.device,
    alive: Callable[[], None] | None = None,
) -> list[float]:
    """Score all samples, divided over the ranks; return the sum of each score over the samples.

    `score` returns `columns` numbers for the sample of an index. All ranks call this function.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    # One row for each sample, so that the order of summation does not depend on the ranks.
    sums = torch.zeros(samples, columns, dtype=torch.float64, device=device)
    model.eval()
    for turn in range(-(-samples // world)):
        index = turn * world + rank
        scores = score(min(index, samples - 1))
        if index < samples:
            sums[index] = torch.tensor(scores, dtype=torch.float64)
        if alive is not None:
            alive()
    model.train()
    dist.all_reduce(sums)
    totals: list[float] = sums.sum(dim=0).tolist()
    return totals


def _picture(*clips: Tensor) -> Picture:
    """Put the middle frames of clips `(1, t, 3, h, w)` side by side; return `(h, w, 3)`."""
    side_by_side = torch.cat([clip[0, clip.shape[1] // 2] for clip in clips], dim=-1)
    pixels: Picture = rearrange(side_by_side, "c h w -> h w c").cpu().numpy()
    return pixels
