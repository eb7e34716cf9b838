"""Score models, and the controls that need no model, on a split of a dataset folder.

In: a dataset folder, the name of a split, and models (`Restorer`: a model and how it wants its
spikes). Out: `Results`. Frames are compared as uint8 RGB, whole, without a border left out. Every
method sees the same frames; models see whole sequences, in clips of `tile_frames` frames.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

import vrtspike
from vrtspike.data.clips import Clip, read_frames, read_spikes
from vrtspike.data.dataset import Dataset, open_dataset
from vrtspike.data.info import DatasetInfo
from vrtspike.data.voxelize import bin_steps, normalize_voxels, voxelize
from vrtspike.inference.controls import controls
from vrtspike.inference.restore import restore_stream
from vrtspike.inference.results import PSNR_CAP, FrameScore, Image, Panel, Results, Score
from vrtspike.inference.run_folder import Restorer
from vrtspike.metrics import psnr, ssim, to_uint8
from vrtspike.perceptual import LPIPS
from vrtspike.settings import EvaluationSettings, LayoutName

log = logging.getLogger(__name__)

MAX_PANELS = 12
"""Sequences of which a frame is kept to look at, evenly chosen."""


def evaluate(
    dataset: Dataset | str | os.PathLike[str],
    split: str,
    models: Mapping[str, Restorer],
    settings: EvaluationSettings,
    *,
    layout: LayoutName = "vrtspike",
    weights_dir: Path | None = None,
    device: torch.device | str = "cpu",
    with_controls: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Score the controls and the models on all sequences of a split.

    Without controls there are no panels either, which show them. `weights_dir` is where LPIPS finds
    its weights; scores are computed on `device` (the models run where they are). `progress` hears
    of (done, total) frames, each counted once for the controls and once for every model.
    """
    clips = open_dataset(dataset, layout).clips(split)
    lpips = LPIPS(weights_dir).to(device) if settings.lpips else None
    total = sum(len(clip.frames) for clip in clips) * (with_controls + len(models))
    shown = MAX_PANELS if with_controls else 0
    chosen = {clips[i].sequence for i in evenly(len(clips), shown)}
    frames, panels, done = [], [], 0
    for clip in clips:
        log.debug("evaluating %s, %d frames", clip.sequence, len(clip.frames))
        with clip.local() as here:
            scorer = _ClipScorer(here, settings, lpips, device)
            for count in scorer.run(models, with_controls):
                done += count
                if progress is not None:
                    progress(done, total)
            frames += scorer.rows
            if clip.sequence in chosen:
                panels.append(scorer.panel())
    protocol = _protocol(split, clips, settings, models)
    return Results(split=split, protocol=protocol, frames=frames, panels=panels)


def evenly(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` indices, spread evenly."""
    if most == 0 or count <= most:
        return list(range(min(count, most)))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


class _ClipScorer:
    """Score all methods on one sequence, and keep the images of its hardest frame.

    The hardest frame is the one whose blurred input has the lowest PSNR, so what is shown does not
    depend on any model.
    """

    def __init__(
        self,
        clip: Clip,
        settings: EvaluationSettings,
        lpips: LPIPS | None,
        device: torch.device | str,
    ) -> None:
        self.clip, self.settings, self.lpips, self.device = clip, settings, lpips, device
        self.rows: list[FrameScore] = []
        self.images: dict[str, Image] = {}
        self.hardest = 0

    def run(self, models: Mapping[str, Restorer], with_controls: bool) -> Iterator[int]:
        """Score everything; yield how many frames were done since the last time."""
        worst = float("inf")
        for index in range(len(self.clip.frames) if with_controls else 0):
            images = self._controls(index)
            scores = self._score(index, images)
            if scores["blurred"].psnr < worst:
                worst, self.hardest = scores["blurred"].psnr, index
                self.images = images
            yield 1
        for name, restorer in models.items():
            index = 0
            for chunk in self._restored(restorer):
                for frame in chunk:
                    image = rearrange(to_uint8(frame), "c h w -> h w c").numpy()
                    self._score(index, {name: image})
                    if index == self.hardest:
                        self.images[name] = image
                    index += 1
                yield len(chunk)

    def panel(self) -> Panel:
        """Return the hardest frame as every method gives it."""
        frame = self.clip.frames[self.hardest].name
        return Panel(
            sequence=self.clip.sequence,
            frame=frame,
            images={**self.images, "sharp": self._sharp(self.hardest)},
            scores={row.method: row.score for row in self.rows if row.frame == frame},
        )

    def _controls(self, index: int) -> dict[str, Image]:
        info = self.clip.info
        blurred = read_frames(self.clip, "blurred", index, index + 1)[0]
        if info.spike is None:
            return {"blurred": blurred}
        return controls(
            blurred,
            read_spikes(self.clip, index, index + 1)[0],
            threshold=info.spike.threshold,
            exposure=info.timeline.exposure,
            target_step=info.timeline.target_step,
            tfp_steps=self.settings.tfp_steps,
            sdm_steps=self.settings.sdm_steps,
            light=info.spike.light,
        )

    def _restored(self, restorer: Restorer) -> Iterator[Tensor]:
        def read(start: int, stop: int) -> tuple[Tensor, Tensor | None]:
            return model_inputs(self.clip, start, stop, restorer)

        return restore_stream(
            restorer.model,
            read,
            len(self.clip.frames),
            tile=self.settings.tile,
            overlap=self.settings.overlap,
            tile_frames=self.settings.tile_frames,
            overlap_frames=self.settings.overlap_frames,
            precision=self.settings.precision,
        )

    def _sharp(self, index: int) -> Image:
        frame: Image = read_frames(self.clip, "sharp", index, index + 1)[0]
        return frame

    def _score(self, index: int, images: Mapping[str, Image]) -> dict[str, Score]:
        """Score some methods' images of one frame."""
        restored = self._on_device(list(images.values()))
        sharp = self._on_device([self._sharp(index)]).expand_as(restored)
        lpips: list[float | None] = [None] * len(images)
        if self.lpips is not None:
            with torch.no_grad():
                lpips = self.lpips(restored / 255, sharp / 255).tolist()
        found = zip(images, psnr(restored, sharp), ssim(restored, sharp), lpips, strict=True)
        scores = {
            name: Score(min(noise.item(), PSNR_CAP), similarity.item(), distance)
            for name, noise, similarity, distance in found
        }
        sequence, frame = self.clip.sequence, self.clip.frames[index].name
        self.rows += [FrameScore(sequence, frame, name, score) for name, score in scores.items()]
        return scores

    def _on_device(self, images: list[Image]) -> Tensor:
        frames = torch.from_numpy(np.stack(images)).to(self.device)
        return rearrange(frames, "n h w c -> n c h w")


def model_inputs(
    clip: Clip, start: int, stop: int, restorer: Restorer
) -> tuple[Tensor, Tensor | None]:
    """Read frames [start, stop) of a clip as a model takes them: blurred and voxels."""
    frames = torch.from_numpy(read_frames(clip, "blurred", start, stop))
    blurred = rearrange(frames, "t h w c -> t c h w").float() / 255
    if restorer.bins is None:
        return blurred, None
    first, last = clip.info.timeline.exposure
    counts = [
        voxelize(read_spikes(clip, index, index + 1)[0], restorer.bins, start=first, stop=last)
        for index in range(start, stop)
    ]
    return blurred, normalize_voxels(
        torch.from_numpy(np.stack(counts)),
        bin_steps(last - first, restorer.bins),
        clip.info.camera.threshold,
        restorer.voxels,
    )


def _camera(info: DatasetInfo) -> dict[str, Any]:
    """Describe the spike camera and its times."""
    if info.spike is None:
        return {"spike_size": None}
    return {
        "spike_size": list(info.spike.grid),
        "spike_threshold": info.spike.threshold,
        "spike_rate_hz": info.spike.rate_hz,
        "exposure_steps": "[{}, {})".format(*info.timeline.exposure),
        "target_step": info.timeline.target_step,
    }


def _protocol(
    split: str,
    clips: tuple[Clip, ...],
    settings: EvaluationSettings,
    models: Mapping[str, Restorer],
) -> dict[str, Any]:
    """Describe how the numbers were made, so that they can be compared with others."""
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
        "comparison": "uint8-rounded RGB, whole frames, no border left out",
        "mean": f"over all frames under {split!r}; over sequences under 'mean_over_clips'",
        "psnr": f"10 log10(255^2 / MSE) dB of each frame; equal frames count {PSNR_CAP:g} dB",
        "ssim": "Gaussian window 11x11, sigma 1.5, population covariance, mean of RGB",
        "lpips": "LPIPS 0.1, AlexNet" if settings.lpips else None,
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
                "spike_bins": restorer.bins,
                "voxels": restorer.voxels if restorer.bins else None,
            }
            for name, restorer in models.items()
        },
    }
