"""Clips to restore, a model that is quick, and restoring from files to files in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tests.spikes.naive_voxels import normalize_voxels, voxelize
from vrtspike.datasets.footage import find_sources, holds_one_clip
from vrtspike.metrics.image import to_uint8
from vrtspike.restoration.job import (
    InProcess,
    Runner,
    SegmentResult,
    restore_clips,
    restore_segment,
)
from vrtspike.restoration.output import Kind, clip_outputs
from vrtspike.restoration.plan import ClipResult, Restoration, plan_restoration
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.segment_worker import RestoreSettings, Segment, SegmentWorker
from vrtspike.restoration.tiled import restore
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.voxels import bin_steps

SIZE, STEPS, EXPOSURE, THRESHOLD, BINS = (16, 24), 8, (1, 7), 3.0, 3
CAMERA = {
    "spike": {"height": 16, "width": 24, "threshold": THRESHOLD, "rate_hz": 200.0},
    "steps_per_frame": STEPS,
    "exposure": list(EXPOSURE),
    "target_step": 4,
}
SETTINGS = RestoreSettings(tile_frames=4, overlap_frames=2, overlap=4)
SEEN = SpikeRepresentation(BINS)
"""What the stand-in sees of the spikes."""
Array = NDArray[Any]


class Placed(nn.Module):
    """A stand-in whose frames depend on their place in the window, so that blending shows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []
        """Each window that was restored, by its blurred frames."""
        self.stop_after: int | None = None
        """Windows after which the model is stopped, as by a key press."""
        self.faults: dict[bytes, str] = {}
        """What goes wrong with windows that hold a frame: `not finite`, or an error."""

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        if self.stop_after == len(self.seen):
            raise KeyboardInterrupt
        self.seen.append(blurred.numpy().tobytes())
        x = blurred if voxels is None else 0.7 * blurred + 0.3 * voxels[:, :, :1]
        place = torch.arange(1, x.shape[1] + 1) / x.shape[1]
        restored = x * (0.6 + 0.4 * place[:, None, None, None])
        for frame, fault in self.faults.items():
            if frame in self.seen[-1]:
                assert fault == "not finite", "a mistake of ours"
                return restored / 0
        return restored


def as_model_sees(frames: Array) -> bytes:
    """Return frames as `Placed` notes them."""
    blurred = rearrange(torch.from_numpy(frames), "t h w c -> t c h w").contiguous()
    return (blurred.float() / 255).numpy().tobytes()


@dataclass
class Scattered:
    """Restore segments as several workers would: of their sizes, and in another order."""

    worker: SegmentWorker
    workers: int
    order: Callable[[Sequence[Segment]], Sequence[Segment]]

    def run(
        self, segments: Sequence[Segment], progress: Callable[[int], None]
    ) -> Iterator[SegmentResult]:
        for segment in self.order(segments):
            yield restore_segment(self.worker, segment, progress)


def backwards(segments: Sequence[Segment]) -> Sequence[Segment]:
    return segments[::-1]


def shuffled(segments: Sequence[Segment]) -> Sequence[Segment]:
    return [segments[n] for n in np.random.default_rng(3).permutation(len(segments))]


@dataclass
class Written:
    """A clip that was written: `place` holds its frames, `stream` its spikes."""

    place: Path
    stream: Path
    frames: Array
    spikes: Array


def write_clip(root: Path, count: int, name: str = "clip", seed: int = 0) -> Written:
    """Write noise as `<root>/in/<name>/*.png` and `<root>/spikes/<name>.dat`."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, *SIZE, 3), np.uint8)
    spikes = rng.random((count * STEPS, *SIZE)) < 0.4
    place, stream = root / "in" / name, root / "spikes" / f"{name}.dat"
    place.mkdir(parents=True)
    stream.parent.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(place / f"{number:03d}.png")
    write_dat(stream, spikes)
    return Written(place, stream, frames, spikes.reshape(count, STEPS, *SIZE))


def voxels_of(clip: Written) -> Tensor:
    """Return the voxels of a clip, frame by frame, rounded to float16 as a model sees them."""
    first, last = EXPOSURE
    counts = np.stack([voxelize(s, BINS, start=first, stop=last) for s in clip.spikes])
    steps = bin_steps(last - first, BINS)
    return torch.from_numpy(normalize_voxels(counts, steps, THRESHOLD, "rate")).half()


def whole(clip: Written, settings: RestoreSettings, model: nn.Module | None = None) -> Array:
    """Restore a clip in one piece, in memory."""
    restored = restore(
        model or Placed(),
        rearrange(torch.from_numpy(clip.frames), "t h w c -> t c h w"),
        voxels_of(clip),
        tile=settings.tile,
        overlap=settings.overlap,
        tile_frames=settings.tile_frames,
        overlap_frames=settings.overlap_frames,
    )
    return np.asarray(rearrange(to_uint8(restored), "t c h w -> t h w c").numpy())


def images_of(folder: Path) -> Array:
    """Read all images of a folder."""
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too, by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@dataclass
class Job:
    """What a user asks for; `plan` and `run` do it."""

    footage: Path
    spikes: Path | None
    out: Path
    model: nn.Module = field(default_factory=Placed)
    settings: RestoreSettings = SETTINGS
    weights: str = "those"
    kind: Kind | None = None
    overwrite: bool = False
    fps: Fraction | None = None
    workers: int = 1
    order: Callable[[Sequence[Segment]], Sequence[Segment]] | None = None
    heard: list[tuple[int, int]] = field(default_factory=list)

    @property
    def restorer(self) -> Restorer:
        return Restorer(self.model, None if self.spikes is None else SEEN)

    def plan(self) -> Restoration:
        sources = find_sources(self.footage, self.spikes)
        targets = clip_outputs(
            [source.name for source in sources],
            self.out,
            single=holds_one_clip(self.footage),
            kind=self.kind,
            overwrite=self.overwrite,
            fps=self.fps,
        )
        return plan_restoration(
            sources, targets, self.restorer, self.weights, self.settings, CAMERA
        )

    def run(self) -> list[ClipResult]:
        return self.restore(self.plan())

    def restore(self, planned: Restoration) -> list[ClipResult]:
        worker = SegmentWorker(self.restorer, self.settings, torch.device("cpu"))
        runner: Runner = InProcess(worker)
        if self.order is not None:
            runner = Scattered(worker, self.workers, self.order)
        return restore_clips(planned, runner, lambda *done: self.heard.append(done))


def again(job: Job, **changes: Any) -> Job:
    """Return the same job with a model that has seen nothing, or one a little different."""
    return replace(job, model=Placed(), heard=[], **changes)
