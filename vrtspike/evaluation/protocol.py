"""The protocol of an evaluation: a description, in words, of how its numbers were computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import vrtspike
from vrtspike.config.evaluation import EvaluationSettings
from vrtspike.datasets.clip import Clip
from vrtspike.datasets.info import DatasetInfo
from vrtspike.evaluation.score import PSNR_CAP
from vrtspike.restoration.restorer import Restorer


def protocol_of(
    split: str,
    clips: Sequence[Clip],
    settings: EvaluationSettings,
    models: Mapping[str, Restorer],
) -> dict[str, Any]:
    """Return a description of the data, the metrics, the controls and the models, for results.json.

    `clips` must not be empty.
    """
    info = clips[0].info
    return {
        "vrtspike": vrtspike.__version__,
        "dataset": str(clips[0].folder),
        "source": info.source,
        "split": split,
        "sequences": len(clips),
        "frames": sum(len(clip.frames) for clip in clips),
        "frame_size": [info.frame.height, info.frame.width],
        **_camera(info),
        **_metrics(split, settings),
        "tfp": f"threshold x mean of {settings.tfp_steps} steps centred at the target, gray",
        "tfi": "threshold / spike interval at the target, gray",
        "sdm": f"blurred x TFP({settings.sdm_steps} steps) / TFP(exposure)",
        "tile": settings.tile,
        "overlap": settings.overlap,
        "tile_frames": settings.tile_frames,
        "overlap_frames": settings.overlap_frames,
        "precision": settings.precision,
        "models": {
            name: {
                "parameters": sum(p.numel() for p in restorer.model.parameters()),
                "spikes": None if restorer.spikes is None else asdict(restorer.spikes),
            }
            for name, restorer in models.items()
        },
    }


def _metrics(split: str, settings: EvaluationSettings) -> dict[str, str | None]:
    """Describe each metric; None for metrics that are switched off."""
    ssim = "Gaussian window 11x11, sigma 1.5, population covariance"
    luma = "of Y of BT.601 (16 to 235, not rounded), range 255"
    change = "(r_t - r_t-1) - (s_t - s_t-1)"
    jump = "|LPIPS(r_t-1, r_t) - LPIPS(s_t-1, s_t)|, Chu et al. 2020, not scaled"
    return {
        "comparison": "uint8-rounded RGB, whole frames, no border left out",
        "mean": f"over all frames under {split!r}; over sequences under 'mean_over_clips'",
        "psnr": f"10 log10(255^2 / MSE) dB of each frame; equal frames count {PSNR_CAP:g} dB",
        "ssim": f"{ssim}, mean of RGB",
        "lpips": "LPIPS 0.1, AlexNet" if settings.lpips else None,
        "psnr_y": f"PSNR {luma}" if settings.luma else None,
        "ssim_y": f"SSIM {luma}" if settings.luma else None,
        "tdiff": f"mean |{change}| of restored r and sharp s, gray levels of 255; "
        "none in a sequence's first frame",
        "tlp": f"{jump}; none in a sequence's first frame" if settings.lpips else None,
    }


def _camera(info: DatasetInfo) -> dict[str, Any]:
    """Describe the spike camera and its timeline."""
    if info.spike is None:
        return {"spike_size": None}
    return {
        "spike_size": list(info.spike.grid),
        "spike_threshold": info.spike.threshold,
        "spike_rate_hz": info.spike.rate_hz,
        "exposure_steps": "[{}, {})".format(*info.timeline.exposure),
        "target_step": info.timeline.target_step,
    }
