"""One segment of a clip: a run of its windows, read, restored and written by one process.

In: a `Segment` (a clip, its windows, and where they go) and a model on its device. Out: images and
shares in the clip's workspace, and facts: frames, seconds, the tile that was used, the greatest
memory. The next window is read, and the last one's images are written, while the model computes. Of
several instants the segment is restored one after the other, so that memory does not grow with
them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vrtspike.config.choices import Precision
from vrtspike.datasets.footage import Footage, FootageReader
from vrtspike.errors import ConfigError, ResourceError, one_line
from vrtspike.restoration.memory import Footprint, budget_of, choose_tile
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.tiled import coarseness, cover_frames, restore_windows
from vrtspike.restoration.tiling import Tile, spans
from vrtspike.restoration.workspace import Workspace
from vrtspike.runtime.process_memory import keep_heap, peak_bytes
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.timeline import Timeline
from vrtspike.weights import WITHOUT_SPIKES

log = logging.getLogger(__name__)

_SpikesAt = tuple[SpikeRepresentation, Timeline]
"""What a model sees of the spikes, at which instant."""

OUT_OF_MEMORY_TRIES = 4
SMALLER = 0.7
"""After running out of memory, so much of the room is used for the next try."""


@dataclass(frozen=True)
class RestoreSettings:
    """How clips are cut up and computed."""

    tile: int | None = None
    """Side of the tiles; null: the best that fits into the memory."""
    overlap: int = 32
    """Pixels that neighbouring tiles share."""
    tile_frames: int = 12
    """Most frames restored at once."""
    overlap_frames: int = 2
    """Frames that neighbouring windows share."""
    precision: Precision = "float32"
    """Arithmetic of the model."""
    memory: int | None = None
    """Most bytes of a worker: its GPU's, or on a CPU its process'. Null: most of what is free."""
    instants: int = 1
    """Restored frames of each blurred one, at the instants of `Timeline.spread`."""

    def restored_windows(self, frames: int) -> list[Tile]:
        """Return the windows of a clip of so many blurred frames, counted in restored ones."""
        each = self.instants
        return [
            Tile(w.start * each, w.stop * each, w.weights.repeat_interleave(each))
            for w in self.windows(frames)
        ]

    def windows(self, frames: int) -> list[Tile]:
        """Return the windows of a clip of so many frames."""
        return cover_frames(frames, self.tile_frames, self.overlap_frames)


@dataclass(frozen=True)
class Segment:
    """The windows [first, stop) of a clip."""

    footage: Footage
    workspace: Workspace
    first: int
    stop: int

    @property
    def name(self) -> str:
        """Return the clip's name."""
        return self.footage.name


class SegmentWorker:
    """A model on a device that restores segments, one after the other."""

    def __init__(
        self,
        restorer: Restorer,
        settings: RestoreSettings,
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        if device.type == "cpu":
            keep_heap()
            if threads is not None:
                torch.set_num_threads(threads)
        self.restorer = replace(restorer, model=restorer.model.to(device))
        self.settings, self.device = settings, device
        self._budget = budget_of(device, settings.memory)
        self._tiles: dict[Footprint, int | None] = {}

    def restore(
        self, segment: Segment, progress: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Restore a segment; `progress` hears of frames as they are done."""
        started = time.monotonic()
        footprint = footprint_of(segment.footage, self.restorer, self.settings)
        if footprint not in self._tiles:
            self._tiles[footprint] = self._choose(footprint)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        for left in reversed(range(OUT_OF_MEMORY_TRIES)):
            try:
                frames = self._restore(segment, self._tiles[footprint], progress)
                break
            except RuntimeError as error:
                if not _is_memory(error):
                    raise
                self._shrink(footprint, error, last=not left)
        facts = {
            "frames": frames,
            "seconds": time.monotonic() - started,
            "tile": self._tiles[footprint],
            "memory": self._peak(),
        }
        segment.workspace.mark_done(segment.first, segment.stop, facts)
        return facts

    def _choose(self, footprint: Footprint) -> int | None:
        """Return the tile for clips of a size: as it was given, or what fits best."""
        if self.settings.tile is not None or self.restorer.settings is None:
            return self.settings.tile
        tile = choose_tile(
            self.restorer.settings,
            footprint,
            overlap=self.settings.overlap,
            precision=self.settings.precision,
            device=self.device,
            budget=self._budget,
        )
        log.info("tiles of %s pixels for %s", tile or "all", footprint)
        return tile

    def _shrink(self, footprint: Footprint, error: RuntimeError, *, last: bool) -> None:
        """Take smaller tiles than those that ran out of memory."""
        tile = self._tiles[footprint]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        unit, side = footprint.unit, tile or max(footprint.height, footprint.width)
        smaller = int(side * SMALLER) // unit * unit
        least = max(2 * -(-self.settings.overlap // unit), 1) * unit
        if last or self.settings.tile is not None or not footprint.tiled or smaller < least:
            raise ResourceError(
                "out of memory",
                where=f"{self.device}, tiles of {tile or 'all'} pixels",
                got=one_line(error, 160),
                fix="give a smaller --tile, --tile-frames or --memory",
            ) from None
        log.warning("out of memory with tiles of %s pixels; now %d", tile or "all", smaller)
        self._tiles[footprint] = smaller

    def _restore(
        self, segment: Segment, tile: int | None, progress: Callable[[int], None] | None
    ) -> int:
        """Restore and write the frames of a segment; return how many it has."""
        windows = self.settings.windows(segment.footage.frames)
        part = windows[segment.first : segment.stop]
        shared = _shared(windows, segment)
        done = 0
        with (
            FootageReader(segment.footage) as reader,
            ThreadPoolExecutor(1, "read") as reading,
            ThreadPoolExecutor(2, "write") as writing,
        ):
            written: list[Future[None]] = []
            for numbers, frames in self._restored(reader, part, tile, reading):
                for future in written:
                    future.result()
                written = []
                for number, frame in zip(numbers, frames, strict=True):
                    workspace, first = segment.workspace, segment.first
                    written.append(
                        writing.submit(workspace.write_share, number, first, frame)
                        if number // self.settings.instants in shared
                        else writing.submit(workspace.write_frame, number, frame)
                    )
                done += len(frames)
                if progress is not None:
                    progress(len(frames))
            for future in written:
                future.result()
        return done

    def _restored(
        self, reader: FootageReader, part: list[Tile], tile: int | None, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[range, Tensor]]:
        """Yield restored frames of some windows, with their numbers, instant after instant."""
        each = self.settings.instants
        for instant in range(each):
            frame = part[0].start
            for frames in restore_windows(
                self.restorer.model,
                _ReadAhead(reader, self._spikes_at(reader.footage, instant), part, pool),
                part,
                tile=tile,
                overlap=self.settings.overlap,
                precision=self.settings.precision,
            ):
                first = frame * each + instant
                yield range(first, first + len(frames) * each, each), frames
                frame += len(frames)

    def _spikes_at(self, footage: Footage, instant: int) -> _SpikesAt | None:
        """Return what the model sees of the spikes at one of the instants."""
        if self.restorer.spikes is None:
            return None
        timelines = footage.clip.info.timeline.spread(self.settings.instants)
        return self.restorer.spikes, timelines[instant]

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_bytes()


class _ReadAhead:
    """Read windows in order, each while the one before is computed."""

    def __init__(
        self,
        reader: FootageReader,
        spikes: _SpikesAt | None,
        windows: list[Tile],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._reader, self._spikes, self._pool = reader, spikes, pool
        self._coming: Iterator[Tile] = iter(windows)
        self._next = self._submit()

    def __call__(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        assert self._next is not None
        found = self._next.result()
        self._next = self._submit()
        return found

    def _submit(self) -> Future[tuple[Tensor, Tensor | None]] | None:
        window = next(self._coming, None)
        return None if window is None else self._pool.submit(self._read, window)

    def _read(self, window: Tile) -> tuple[Tensor, Tensor | None]:
        frames = self._reader.frames(window.start, window.stop)
        blurred = rearrange(torch.from_numpy(frames), "t h w c -> t c h w")
        if self._spikes is None:
            return blurred, None
        voxels = self._reader.voxels(window.start, window.stop, *self._spikes)
        return blurred, torch.from_numpy(voxels)


def check_model(footage: Footage, restorer: Restorer) -> None:
    """Refuse a clip that lacks what the model wants, or has what it has no use for."""
    has = footage.clip.info.spike is not None
    if restorer.spikes is not None and not has:
        raise ConfigError(
            "the model restores frames with their spikes, and there are none",
            where=footage.name,
            fix=f"give --spikes, or --weights {WITHOUT_SPIKES}",
        )
    if restorer.spikes is None and has:
        raise ConfigError(
            "the model takes no spikes",
            where=footage.name,
            fix="leave --spikes away, or give weights of a model with spikes",
        )


def check_tiles(footage: Footage, restorer: Restorer, settings: RestoreSettings) -> None:
    """Refuse windows and tiles that a clip cannot be cut into."""
    footprint, tile = footprint_of(footage, restorer, settings), settings.tile
    if tile is None or tile >= max(footage.size):
        return
    if footprint.spike_grid is not None:
        coarseness(footage.size, footprint.spike_grid)
    for length in footage.size:
        spans(length, tile, settings.overlap, multiple=footprint.unit)


def footprint_of(footage: Footage, restorer: Restorer, settings: RestoreSettings) -> Footprint:
    """Return the sizes that decide about a clip's memory."""
    windows = settings.windows(footage.frames)
    frames = max(window.stop - window.start for window in windows)
    return Footprint.of(
        footage.clip.info, frames, restorer.spikes, restorer.unit, settings.instants
    )


def _shared(windows: list[Tile], segment: Segment) -> set[int]:
    """Return the frames of a segment that windows of other segments hold, too."""
    outside = [*windows[: segment.first], *windows[segment.stop :]]
    first, stop = windows[segment.first].start, windows[segment.stop - 1].stop
    return {
        frame
        for window in outside
        for frame in range(max(window.start, first), min(window.stop, stop))
    }


def _is_memory(error: RuntimeError) -> bool:
    """Tell whether an error is one of memory that is not to be had."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in ("allocate memory", "ALLOC_FAILED")
    )
