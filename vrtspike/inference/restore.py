"""Restored frames from a model, of videos of any length and size.

In: a model `forward(blurred, voxels=None) -> restored`, blurred frames `(t, 3, h, w)` in [0, 1] and
spike voxels `(t, k, hs, ws)` (None for a model without spikes). Out: restored frames `(t, 3, h, w)`
in float32 on the CPU, not clipped.

Clips of at most `tile_frames` frames, and tiles of at most `tile` pixels a side, are restored one
at a time and blended as `vrtspike.inference.tiling` says. `restore_stream` reads and yields frames
as it goes, so its memory does not grow with the length of the video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import CheckpointError, ConfigError, DataFormatError
from vrtspike.inference.tiling import cover
from vrtspike.model.precision import autocast
from vrtspike.settings import Precision

Read = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""Return blurred frames and voxels of frames [start, stop)."""

SIZE_UNIT = 8
"""Sides of tiles are multiples of the model's coarsest scale, so that no tile is padded."""


def restore(
    model: nn.Module,
    blurred: Float[Tensor, "t 3 h w"],
    voxels: Float[Tensor, "tv k hs ws"] | None = None,
    *,
    tile: int | None = None,
    overlap: int = 32,
    tile_frames: int = 12,
    overlap_frames: int = 2,
    precision: Precision = "float32",
) -> Float[Tensor, "t 3 h w"]:
    """Restore a whole clip that is in memory."""
    if voxels is not None and len(voxels) != len(blurred):
        raise DataFormatError(
            "frames and voxels are not of the same length",
            got=f"{len(blurred)} frames, voxels of {len(voxels)}",
        )

    def read(start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        return blurred[start:stop], None if voxels is None else voxels[start:stop]

    chunks = restore_stream(
        model,
        read,
        len(blurred),
        tile=tile,
        overlap=overlap,
        tile_frames=tile_frames,
        overlap_frames=overlap_frames,
        precision=precision,
    )
    return torch.cat(list(chunks))


def restore_stream(
    model: nn.Module,
    read: Read,
    frames: int,
    *,
    tile: int | None = None,
    overlap: int = 32,
    tile_frames: int = 12,
    overlap_frames: int = 2,
    precision: Precision = "float32",
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Yield the restored frames of a video in order, as soon as they are final."""
    if frames < 1:
        raise DataFormatError("there is no frame to restore", got=f"{frames} frames")
    clips = cover(frames, tile_frames, overlap_frames)
    pending = None
    for index, clip in enumerate(clips):
        blurred, voxels = read(clip.start, clip.stop)
        restored = _restore_clip(model, blurred, voxels, tile, overlap, precision)
        restored *= clip.weights[:, None, None, None]
        if pending is not None:
            restored[: len(pending)] += pending
        following = clips[index + 1].start if index + 1 < len(clips) else clip.stop
        yield restored[: following - clip.start]
        pending = restored[following - clip.start :].clone()


def _restore_clip(
    model: nn.Module,
    blurred: Tensor,
    voxels: Tensor | None,
    tile: int | None,
    overlap: int,
    precision: Precision,
) -> Tensor:
    """Restore a clip of few frames, tile by tile."""
    height, width = blurred.shape[-2:]
    if tile is None or tile >= max(height, width):
        return _run(model, blurred, voxels, precision)
    factor = 1 if voxels is None else _coarseness((height, width), voxels.shape[-2:])
    unit = math.lcm(SIZE_UNIT, factor)
    restored = torch.zeros(blurred.shape)
    for rows in cover(height, tile, overlap, multiple=unit):
        for columns in cover(width, tile, overlap, multiple=unit):
            top, bottom, left, right = rows.start, rows.stop, columns.start, columns.stop
            part = None
            if voxels is not None:
                part = voxels[
                    ..., top // factor : bottom // factor, left // factor : right // factor
                ]
            found = _run(model, blurred[..., top:bottom, left:right], part, precision)
            weights = rows.weights[:, None] * columns.weights
            restored[..., top:bottom, left:right] += found * weights
    return restored


def _coarseness(frame: tuple[int, ...], spikes: tuple[int, ...]) -> int:
    """Return how many pixels of a frame a spike pixel covers along each axis."""
    factor = frame[0] // spikes[0]
    if (spikes[0] * factor, spikes[1] * factor) != tuple(frame):
        raise ConfigError(
            "tiles need a spike grid that divides the frame",
            where="evaluation.tile",
            got=f"frames {frame[0]}x{frame[1]}, spikes {spikes[0]}x{spikes[1]}",
            expected="sizes in an integer ratio",
            fix="restore whole frames (evaluation.tile=null)",
        )
    return factor


def _run(model: nn.Module, blurred: Tensor, voxels: Tensor | None, precision: Precision) -> Tensor:
    """Run the model on frames `(t, 3, h, w)` and check what comes back."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    single = len(blurred) == 1
    if single:
        # The model looks at neighbouring frames; a lone frame is its own neighbour.
        blurred = repeat(blurred, "1 c h w -> 2 c h w")
        voxels = None if voxels is None else repeat(voxels, "1 k h w -> 2 k h w")
    learning = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(device, precision):
            restored: Tensor = model(
                blurred[None].to(device, torch.float32),
                None if voxels is None else voxels[None].to(device, torch.float32),
            )
            restored = restored[0].float().cpu()
    finally:
        model.train(learning)
    if not restored.isfinite().all():
        raise CheckpointError(
            "the model restores frames to numbers that are not finite",
            fix="the weights are damaged or belong to another model; load others",
        )
    return restored[:1] if single else restored
