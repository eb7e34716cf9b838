"""How large tiles may be so that restoring keeps to a memory bound.

In: a model's settings, the size of a video and of the windows it is restored in, and bytes. Out:
the tile that computes the fewest pixels twice among those that fit. What a tile takes is counted
(`vrtspike.model.costs`), not guessed: one pass of a small tile, on the device and in the arithmetic
that will be used, with every tensor followed from its allocation to its end.

On a GPU the bound is of its own memory. On a CPU it is of a whole process: Python, libraries and
weights, the frames and voxels of the windows at hand, and a tile with the holes of the heap
(`vrtspike.runtime.process_memory.keep_heap`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import torch

from vrtspike.config.choices import Precision
from vrtspike.config.model import ModelSettings
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import ConfigError, ResourceError
from vrtspike.model.costs import Clip, measure_costs
from vrtspike.restoration.tiled import UNIT
from vrtspike.restoration.tiling import spans
from vrtspike.runtime.process_memory import free_bytes, resident_bytes
from vrtspike.spikes.representation import SpikeRepresentation

SHARE_OF_FREE = {"cuda": 0.9, "cpu": 0.6}
"""Without a bound, this share of the memory that is free may be taken."""
RESERVED_OVER_ALIVE = {"cuda": 1.1, "cpu": 1.7}
"""What an allocator holds at most over what is alive at once. On a CPU measured: 1.5 to 1.7 for
tiles of 64 to 320 pixels, models of 16 and 96 channels, 2 to 12 frames."""
SMALLEST_TILE = 64
"""Pixels; smaller tiles are nearly all overlap."""
MEASURED = 4 * SMALLEST_TILE
"""Pixels; side of the tile whose memory is counted."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Footprint:
    """The sizes that decide what restoring takes, whatever the length of the video."""

    height: int
    width: int
    frames: int
    """Of a window."""
    spike_grid: tuple[int, int] | None = None
    spike_channels: int = 0
    spike_steps: int = 0
    """Steps that are in memory while a frame's spikes are represented."""
    unit_of_model: int = UNIT

    @classmethod
    def of(
        cls,
        info: DatasetInfo,
        frames: int,
        spikes: SpikeRepresentation | None,
        unit: int = UNIT,
        instants: int = 1,
    ) -> Footprint:
        """Return that of windows of so many frames, for a model that sees `spikes` (None: none)
        and whose tiles have sides that are multiples of `unit`; at so many instants of each frame,
        one after the other."""
        height, width = info.frame.height, info.frame.width
        if spikes is None:
            return cls(height, width, frames, unit_of_model=unit)
        timelines = info.timeline.spread(instants) if info.continuous else ()
        reach = max((spikes.reach(timeline) for timeline in timelines), default=0)
        steps = (2 * reach + 1) * info.timeline.steps_per_frame
        return cls(height, width, frames, info.camera.grid, spikes.channels, steps, unit)

    @property
    def unit(self) -> int:
        """Return what the sides of a tile are multiples of."""
        if self.spike_grid is None:
            return self.unit_of_model
        return math.lcm(self.unit_of_model, max(self.height // self.spike_grid[0], 1))

    @property
    def tiled(self) -> bool:
        """Tell whether tiles can be cut: the spike grid divides the frame."""
        if self.spike_grid is None:
            return True
        rows, columns = self.spike_grid
        factor = max(self.height // rows, 1)
        return (rows * factor, columns * factor) == (self.height, self.width)

    @property
    def held(self) -> int:
        """Return the bytes of frames and voxels of the windows at hand, beside a tile's.

        Frames in uint8: of this window, of the next one, of the reader and of those that are being
        written. Results in float32: the window's, and the tail that it shares with the next one.
        """
        pixels = self.frames * self.height * self.width * 3
        total = 4 * pixels + 2 * 4 * pixels
        if self.spike_grid is not None:
            grid = math.prod(self.spike_grid)
            total += 2 * 2 * self.frames * self.spike_channels * grid + 2 * self.spike_steps * grid
        return total


def parse_bytes(text: str) -> int:
    """Read `8GB`, `800MB`, `6.5GiB` or a number of bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0 or (found[3] and not found[2]):
        raise ConfigError(
            "not an amount of memory", where="--memory", got=text, expected="such as 8GB or 800MB"
        )
    power = list(UNITS).index(found[2].upper())
    unit = 1024**power if found[3] else UNITS[found[2].upper()]
    return int(float(found[1]) * unit)


@dataclass(frozen=True)
class MemoryBudget:
    """The bytes that a process may take, and those that it took before it restored anything.

    What it took since is there for the next tile: allocators keep it.
    """

    limit: int
    taken: int


def budget_of(device: torch.device, bound: int | None) -> MemoryBudget:
    """Return the budget of a process about to restore; without a bound most of what is free."""
    if device.type == "cuda":
        free, taken = torch.cuda.mem_get_info(device)[0], torch.cuda.memory_allocated(device)
    else:
        free, taken = free_bytes(), resident_bytes()
    usual = int(free * SHARE_OF_FREE[device.type]) + taken
    return MemoryBudget(usual if bound is None else bound, taken)


def choose_tile(
    settings: ModelSettings,
    size: Footprint,
    *,
    overlap: int,
    precision: Precision,
    device: torch.device,
    budget: MemoryBudget,
) -> int | None:
    """Return the side of the tiles, None for whole frames.

    Raises ResourceError where not even the smallest tile fits.
    """
    limit = budget.limit
    room = limit - budget.taken - (0 if device.type == "cuda" else size.held)
    per_pixel = _bytes_per_pixel(settings, size.frames, precision, device.type)
    fits = [
        (cost, -pixels, tile)
        for tile in _candidates(size, overlap)
        for pixels, cost in [_tiles_of(size, tile, overlap)]
        if pixels * per_pixel <= room
    ]
    if fits:
        return min(fits)[2] or None
    smallest, _ = min(_tiles_of(size, tile, overlap) for tile in _candidates(size, overlap))
    needed = limit - room + int(smallest * per_pixel)
    raise ResourceError(
        "the memory is too small for the smallest tile",
        where=f"{device.type}, windows of {size.frames} frames of {size.height}x{size.width}",
        got=f"{limit / 1e9:.2f} GB",
        expected=f"{needed / 1e9:.2f} GB at least",
        fix="give more with --memory, fewer --tile-frames, or a smaller --overlap",
    )


def _candidates(size: Footprint, overlap: int) -> list[int]:
    """Return sides of tiles from large to small, 0 for whole frames."""
    if not size.tiled:
        return [0]
    least = max(SMALLEST_TILE, 2 * -(-overlap // size.unit) * size.unit)
    largest = max(size.height, size.width)
    return [0, *range(largest // size.unit * size.unit, least - 1, -size.unit)]


def _tiles_of(size: Footprint, tile: int, overlap: int) -> tuple[int, float]:
    """Return the pixels of the largest tile, and those of all tiles over those of the frame."""
    axes = []
    for length in (size.height, size.width):
        # As restoring has it: a frame that the tile covers whole is not padded to the unit.
        parts = spans(length, tile or None, overlap, multiple=size.unit)
        axes.append([stop - start for start, stop in parts])
    unit = size.unit_of_model
    largest = math.prod(-(-max(axis) // unit) * unit for axis in axes)
    return largest, math.prod(map(sum, axes)) / (size.height * size.width)


@lru_cache(maxsize=8)
def _bytes_per_pixel(
    settings: ModelSettings, frames: int, precision: Precision, device: str
) -> float:
    """Return the most bytes alive for each pixel of a tile while it is restored."""
    frames = max(frames, 2)
    clip = Clip(1, frames, MEASURED, MEASURED)
    costs = measure_costs(
        settings, clip, device=torch.device(device), precision=precision, backward=False
    )
    channels = 0 if settings.fusion == "none" else settings.spike.channels
    inputs = 4 * frames * (3 + channels)
    per_pixel = costs.activations / (clip.height * clip.width) + inputs
    return per_pixel * RESERVED_OVER_ALIVE[device]


def free_for_all() -> int:
    """Return what all workers on this machine's CPU may take together, where nobody said."""
    return int(free_bytes() * SHARE_OF_FREE["cpu"])
