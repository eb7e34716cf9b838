"""Restored frames from a model, of videos of any length and size.

In: a model `forward(blurred, voxels=None) -> restored`, blurred frames `(t, 3, h, w)` in [0, 1] (or
uint8), and spike voxels `(t, k, hs, ws)` (None for a model without spikes). Out: restored frames
`(t, 3, h, w)` in float32 on the CPU, not clipped.

Windows of at most `tile_frames` frames, and tiles of at most `tile` pixels a side, are restored one
at a time and blended as `vrtspike.restoration.tiling` says. `restore_stream` reads and yields
frames as it goes, so its memory does not grow with the length of the video. `restore_windows` does
a part of a video's windows, so that several processes can share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
from einops import repeat
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vrtspike.config.choices import Precision
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError
from vrtspike.model.precision import autocast
from vrtspike.restoration.tiling import Tile, cover

Read = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""Return blurred frames and voxels of frames [start, stop)."""
UNIT = 8
"""Sides of the tiles of a model that does not say its `unit` are multiples of this."""


def restore(
    model: nn.Module,
    blurred: Shaped[Tensor, "t 3 h w"],
    voxels: Shaped[Tensor, "tv k hs ws"] | None = None,
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
    windows = cover_frames(frames, tile_frames, overlap_frames)
    return restore_windows(model, read, windows, tile=tile, overlap=overlap, precision=precision)


def cover_frames(frames: int, tile_frames: int, overlap_frames: int) -> list[Tile]:
    """Return the windows in which a video is restored, with the weights of their frames."""
    if frames < 1:
        raise DataFormatError("there is no frame to restore", got=f"{frames} frames")
    return list(_cover(frames, tile_frames, overlap_frames))


# Of an hour of video this takes a second, and is asked for again and again.
_cover = lru_cache(maxsize=64)(cover)


def restore_windows(
    model: nn.Module,
    read: Read,
    windows: Sequence[Tile],
    *,
    tile: int | None,
    overlap: int,
    precision: Precision,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Yield the frames from the first window's start to the last one's end, in order.

    Frames that are shared with windows which are not among these come as weighted sums, to which
    the others' are to be added.
    """
    pending = None
    for index, window in enumerate(windows):
        blurred, voxels = read(window.start, window.stop)
        restored = _restore_window(model, blurred, voxels, tile, overlap, precision)
        restored *= window.weights[:, None, None, None]
        if pending is not None:
            restored[: len(pending)] += pending
        following = windows[index + 1].start if index + 1 < len(windows) else window.stop
        yield restored[: following - window.start]
        pending = restored[following - window.start :].clone()


def _restore_window(
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
    factor = 1 if voxels is None else coarseness((height, width), voxels.shape[-2:])
    unit = math.lcm(unit_of(model), factor)
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
            found *= rows.weights[:, None] * columns.weights
            restored[..., top:bottom, left:right] += found
    return restored


def coarseness(frame: tuple[int, ...], spikes: tuple[int, ...]) -> int:
    """Return how many pixels of a frame a spike pixel covers along each axis."""
    factor = max(frame[0] // spikes[0], 1)
    if (spikes[0] * factor, spikes[1] * factor) != tuple(frame):
        raise ConfigError(
            "tiles need a spike grid that divides the frame",
            got=f"frames {frame[0]}x{frame[1]}, spikes {spikes[0]}x{spikes[1]}",
            expected="sizes in an integer ratio",
            fix="restore whole frames, without a tile",
        )
    return factor


def _run(
    model: nn.Module,
    blurred: Tensor,
    voxels: Tensor | None,
    precision: Precision,
) -> Tensor:
    """Run the model on frames `(t, 3, h, w)` and check what comes back."""
    device = device_of(model)
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
                _intensity(blurred.to(device))[None],
                None if voxels is None else voxels.to(device).contiguous().float()[None],
            )
            restored = restored[0].float()
            finite = bool(restored.isfinite().all())
            restored = restored.cpu()
    finally:
        model.train(learning)
    if not finite:
        raise CheckpointError(
            "the model restores frames to numbers that are not finite",
            fix="the weights are damaged or belong to another model; load others",
        )
    return restored[:1] if single else restored


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's weights are; the CPU of a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def unit_of(model: nn.Module) -> int:
    """Return what the sides of tiles are multiples of, so that the model pads none."""
    return getattr(model, "unit", UNIT)


def _intensity(frames: Tensor) -> Tensor:
    """Return frames as floats; those of uint8 are brought to [0, 1].

    Images are read with their channels last; a model that is given that order of bytes takes paths
    that are several times slower.
    """
    floats = frames.contiguous().float()
    return floats / 255 if frames.dtype == torch.uint8 else floats
