"""Score the frames of one sequence in order, by all metrics at once.

In: the uint8 RGB images of one frame by method, and the sharp frame. Out: scores by method. Luma
and LPIPS features of a sharp frame, and its distance from the previous one, are computed once for
all methods. Only the previous frame of each method is kept in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vrtspike.evaluation.score import PSNR_CAP, Score
from vrtspike.metrics.image import luma, psnr, ssim, tdiff
from vrtspike.metrics.perceptual import LPIPS

Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A frame ready for the metrics: its pixels, and its LPIPS features (None without LPIPS)."""

    pixels: Tensor
    features: list[Tensor] | None


class SequenceScorer:
    """Score the frames of a sequence in order; the methods must be the same for all frames.

    `with_luma`: also compute PSNR and SSIM of luma. `lpips`: the LPIPS network, or None to leave
    out `lpips` and `tlp`.
    """

    def __init__(self, *, with_luma: bool, lpips: LPIPS | None, device: torch.device | str) -> None:
        self.with_luma, self.lpips, self.device = with_luma, lpips, device
        self._sharp: _Seen | None = None
        self._before: dict[str, _Seen] = {}

    def score(self, images: Mapping[str, Image], sharp: Image) -> dict[str, Score]:
        """Score the images of the next frame, one for each method."""
        truth = self._look(sharp)
        sharp_luma = luma(truth.pixels) if self.with_luma else None
        sharp_change = None if self._sharp is None else self._distance(self._sharp, truth)
        scores = {}
        for name, image in images.items():
            seen = self._look(image)
            before, self._before[name] = self._before.get(name), seen
            scores[name] = self._compare(seen, before, truth, sharp_luma, sharp_change)
        self._sharp = truth
        return scores

    def _compare(
        self,
        seen: _Seen,
        before: _Seen | None,
        truth: _Seen,
        sharp_luma: Tensor | None,
        sharp_change: float | None,
    ) -> Score:
        """Score one image.

        `sharp_change`: LPIPS between the sharp frame and the one before it.
        """
        psnr_y = ssim_y = difference = jump = None
        if sharp_luma is not None:
            image_luma = luma(seen.pixels)
            psnr_y, ssim_y = (
                _capped(psnr(image_luma, sharp_luma)),
                ssim(image_luma, sharp_luma).item(),
            )
        if before is not None and self._sharp is not None:
            pixels = (before.pixels, seen.pixels, self._sharp.pixels, truth.pixels)
            difference = tdiff(*pixels).item()
            own_change = self._distance(before, seen)
            if own_change is not None and sharp_change is not None:
                jump = abs(own_change - sharp_change)
        return Score(
            psnr=_capped(psnr(seen.pixels, truth.pixels)),
            ssim=ssim(seen.pixels, truth.pixels).item(),
            lpips=self._distance(seen, truth),
            psnr_y=psnr_y,
            ssim_y=ssim_y,
            tdiff=difference,
            tlp=jump,
        )

    def _look(self, image: Image) -> _Seen:
        """Copy an image to the device; compute its LPIPS features, if LPIPS is used."""
        pixels = rearrange(torch.from_numpy(image).to(self.device), "h w c -> 1 c h w")
        if self.lpips is None:
            return _Seen(pixels, None)
        with torch.no_grad():
            return _Seen(pixels, self.lpips.look(pixels.float() / 255))

    def _distance(self, one: _Seen, other: _Seen) -> float | None:
        """Return the LPIPS distance of two frames; None if LPIPS is not used."""
        if self.lpips is None or one.features is None or other.features is None:
            return None
        with torch.no_grad():
            return self.lpips.distance(one.features, other.features).item()


def _capped(noise: Tensor) -> float:
    return min(noise.item(), PSNR_CAP)
