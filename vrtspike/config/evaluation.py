"""Settings of an evaluation.

Times are in steps of the spike camera unless a name says frames, seconds or Hz; sizes are in
pixels.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vrtspike.config.choices import Precision
from vrtspike.config.section import Count, PlainName, Positive, Section


class EvaluationSettings(Section):
    """Which frames to evaluate, with which metrics, and the tiling of the restoration."""

    split: PlainName = "held_out"
    """Split of the dataset folder to evaluate."""
    tile: Positive | None = None
    """Side of the spatial tiles; null: whole frames, or the largest tiles that free memory
    allows."""
    tile_frames: Annotated[int, Field(ge=2, le=1_000_000)] = 12
    """Greatest number of frames that are restored at once."""
    overlap: Count = 32
    """Pixels that neighbouring tiles share."""
    overlap_frames: Count = 2
    """Frames that neighbouring clips share."""
    tfp_steps: Positive = 32
    """Window in steps of the scaled spike average (TFP), centred on the target step."""
    sdm_steps: Positive = 32
    """Short window in steps of the spike/blur ratio method (SDM)."""
    precision: Precision = "float32"
    """Floating-point precision of the models."""
    lpips: bool = False
    """Also compute LPIPS and its change in time (needs `loss.weights_dir` or internet access)."""
    luma: bool = False
    """Also compute PSNR and SSIM of luma (Y of BT.601)."""
    robustness: bool = False
    """Also run the models with corrupted spikes, which takes over twenty times as long."""
