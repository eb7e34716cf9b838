"""Settings of an evaluation.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vrtspike.config.choices import Precision
from vrtspike.config.section import Count, PlainName, Positive, Section


class EvaluationSettings(Section):
    """Which frames are evaluated and how the model runs over them."""

    split: PlainName = "held_out"
    """Split of the dataset folder."""
    tile: Positive | None = None
    """Side of the spatial tiles; null: whole frames, or the best that fit into free memory."""
    tile_frames: Annotated[int, Field(ge=2, le=1_000_000)] = 12
    """Most frames restored at once."""
    overlap: Count = 32
    """Pixels that neighbouring tiles share."""
    overlap_frames: Count = 2
    """Frames that neighbouring clips share."""
    tfp_steps: Positive = 32
    """Window of the scaled spike average (TFP), centred at the target step."""
    sdm_steps: Positive = 32
    """Short window of the spike/blur ratio method (SDM)."""
    precision: Precision = "float32"
    """Arithmetic of the models."""
    lpips: bool = False
    """Compute LPIPS too, and its change in time (needs `loss.weights_dir` or internet)."""
    luma: bool = False
    """Compute PSNR and SSIM of luma (Y of BT.601) too."""
    robustness: bool = False
    """Run the models that take spikes with disturbed ones too, over twenty times more work."""
