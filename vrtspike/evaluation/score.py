"""How near one method's frame is to the sharp one, in numbers.

    psnr psnr_y    dB; a frame that equals the sharp one counts as `PSNR_CAP`
    ssim ssim_y    1 is perfect; `_y` is of luma alone, where it was asked for
    lpips          perceptual distance, where it was asked for
    tdiff tlp      how far the change from the frame before is from the sharp video's, in gray
                   levels and in LPIPS; a sequence's first frame has none

A number that is not there is None, and means leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

PSNR_CAP = 100.0
METRICS = ("psnr", "ssim", "lpips", "psnr_y", "ssim_y", "tdiff", "tlp")


@dataclass(frozen=True)
class Score:
    """Distances of one restored frame, or a mean of them, from the sharp one."""

    psnr: float
    ssim: float
    lpips: float | None = None
    psnr_y: float | None = None
    ssim_y: float | None = None
    tdiff: float | None = None
    tlp: float | None = None

    @staticmethod
    def mean(scores: Iterable[Score]) -> Score:
        """Return the mean of some scores."""
        found = [score.as_dict() for score in scores]
        others = {name: _mean([score[name] for score in found]) for name in METRICS[2:]}
        psnr, ssim = (float(np.mean([score[name] for score in found])) for name in METRICS[:2])
        return Score(psnr, ssim, **others)

    def as_dict(self) -> dict[str, float | None]:
        """Return the numbers by name."""
        return asdict(self)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
