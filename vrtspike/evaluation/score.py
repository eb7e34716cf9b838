"""The score of one restored frame compared with the sharp frame.

    psnr psnr_y    dB; a frame that equals the sharp one counts as `PSNR_CAP`
    ssim ssim_y    1 is perfect; `_y` is computed on luma alone (optional)
    lpips          perceptual distance; 0 is perfect (optional)
    tdiff tlp      difference between the change from the previous frame and that of the sharp
                   video, in gray levels and in LPIPS; None for the first frame of a sequence

A metric that was not computed is None; means ignore it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

PSNR_CAP = 100.0
METRICS = ("psnr", "ssim", "lpips", "psnr_y", "ssim_y", "tdiff", "tlp")


@dataclass(frozen=True)
class Score:
    """The metrics of one restored frame, or their means over several frames."""

    psnr: float
    ssim: float
    lpips: float | None = None
    psnr_y: float | None = None
    ssim_y: float | None = None
    tdiff: float | None = None
    tlp: float | None = None

    @staticmethod
    def mean(scores: Iterable[Score]) -> Score:
        """Return the mean of each metric over scores that have it."""
        rows = [score.as_dict() for score in scores]
        optional = {name: _mean([row[name] for row in rows]) for name in METRICS[2:]}
        psnr, ssim = (float(np.mean([row[name] for row in rows])) for name in METRICS[:2])
        return Score(psnr, ssim, **optional)

    def as_dict(self) -> dict[str, float | None]:
        """Return the metrics by name."""
        return asdict(self)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
