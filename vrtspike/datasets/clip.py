"""Clips: the frames of one sequence by the files that hold them, and reading windows of them.

A clip is an index, small enough to send between processes: nothing is read until asked for. The
spikes of a frame are pieces of one or several files; read, they are the `steps_per_frame` steps of
its timeline on the grid that is registered to the frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import DataFormatError
from vrtspike.spikes.stream import SpikeStream
from vrtspike.storage.folder import Folder
from vrtspike.video.image_file import read_image

FrameKind = Literal["blurred", "sharp"]
FRAME_KINDS: tuple[FrameKind, ...] = ("blurred", "sharp")


class Piece(NamedTuple):
    """The steps `[start, stop)` of a spike file."""

    file: str
    start: int
    stop: int


@dataclass(frozen=True)
class FrameFiles:
    """Where one frame's images and spikes are, below the dataset's folder; None: there is none."""

    name: str
    blurred: str | None
    sharp: str | None
    spikes: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Clip:
    """The frames of one sequence."""

    split: str
    sequence: str
    folder: Folder
    frames: tuple[FrameFiles, ...]
    info: DatasetInfo
    steps: dict[str, int]
    """Steps of each spike file."""

    @property
    def name(self) -> str:
        """Return the sequence's name with its split."""
        return f"{self.split}/{self.sequence}"

    @property
    def where(self) -> str:
        """Name the clip in messages."""
        return f"{self.folder}/{self.name}"

    @property
    def files(self) -> list[str]:
        """Return every file of the clip, sorted."""
        found = {file for frame in self.frames for file in (frame.blurred, frame.sharp) if file}
        return sorted(found | self.steps.keys())

    @contextmanager
    def local(self) -> Iterator[Clip]:
        """Give this clip with its files on this machine: itself, or a copy for a while."""
        with self.folder.local(self.files) as path:
            yield replace(self, folder=Folder.at(path)) if self.folder.remote else self

    def image_path(self, kind: FrameKind, index: int) -> Path:
        """Return the image file of a frame."""
        frame = self.frames[index]
        file = frame.blurred if kind == "blurred" else frame.sharp
        if file is None:
            raise DataFormatError(f"no {kind} image of frame {frame.name}", where=self.where)
        return self.folder.path / file

    def stream(self, file: str) -> SpikeStream:
        """Map a spike file, as it is stored."""
        spike = self.info.camera
        return SpikeStream.open(
            self.folder.path / file,
            height=spike.height,
            width=spike.width,
            bit_order=spike.bit_order,
            flip=spike.flip,
            rate_hz=spike.rate_hz,
            threshold=spike.threshold,
            steps=self.steps[file],
            pad_to_byte=True,
        )


def read_frames(
    clip: Clip, kind: FrameKind, start: int = 0, stop: int | None = None
) -> UInt8[np.ndarray, "t h w 3"]:
    """Read the frames `[start, stop)` of a clip as RGB."""
    stop = _checked_stop(clip, start, stop)
    frame = clip.info.frame
    images = np.empty((stop - start, frame.height, frame.width, 3), np.uint8)
    for i in range(start, stop):
        images[i - start] = read_image(clip.image_path(kind, i), (frame.height, frame.width))
    return images


def read_spikes(
    clip: Clip, start: int = 0, stop: int | None = None
) -> Bool[np.ndarray, "t s hs ws"]:
    """Read all steps of the frames `[start, stop)` of a clip, registered to the frames."""
    stop = _checked_stop(clip, start, stop)
    parts = [_read_pieces(clip, frame.spikes) for frame in clip.frames[start:stop]]
    # Stacking copies, and one frame may be a whole recording.
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


def iter_spikes(
    clip: Clip, index: int, start: int = 0, stop: int | None = None
) -> Iterator[Bool[np.ndarray, "s hs ws"]]:
    """Go through the steps `[start, stop)` of a frame, registered, in bounded memory."""
    registration, base = clip.info.camera.registration, 0
    for file, first, last in clip.frames[index].spikes:
        begin = first + max(start - base, 0)
        end = last if stop is None else min(first + stop - base, last)
        for _, spikes in clip.stream(file).pieces(begin, end):
            yield spikes if registration is None else registration.apply(spikes)
        base += last - first


def read_spikes_around(
    clip: Clip, index: int, reach: int
) -> tuple[Bool[np.ndarray, "s hs ws"], int]:
    """Read a frame's steps with up to `reach` more on both sides, as far as there are any.

    The files of frames that follow one another are one stream. Returns the steps and the place of
    the frame's first step among them.
    """
    pieces = clip.frames[index].spikes
    if not pieces:
        raise DataFormatError("the clip has no spikes", where=clip.where)
    used = (piece.file for frame in clip.frames for piece in frame.spikes)
    files = list(dict.fromkeys(used)) if clip.info.continuous else [pieces[0].file]
    lengths = [clip.steps[file] for file in files]
    start = sum(lengths[: files.index(pieces[0].file)]) + pieces[0].start
    stop = start + sum(piece.stop - piece.start for piece in pieces)
    first, last = max(start - reach, 0), min(stop + reach, sum(lengths))
    around, base = [], 0
    for file, length in zip(files, lengths, strict=True):
        inside = Piece(file, max(first - base, 0), min(last - base, length))
        if inside.start < inside.stop:
            around.append(inside)
        base += length
    return _read_pieces(clip, tuple(around)), start - first


def _read_pieces(clip: Clip, pieces: tuple[Piece, ...]) -> Bool[np.ndarray, "s hs ws"]:
    """Read pieces one after the other, and register them to the frames."""
    if not pieces:
        raise DataFormatError("the clip has no spikes", where=clip.where)
    parts = [clip.stream(piece.file)[piece.start : piece.stop] for piece in pieces]
    spikes = parts[0] if len(parts) == 1 else np.concatenate(parts)
    registration = clip.info.camera.registration
    return spikes if registration is None else registration.apply(spikes)


def _checked_stop(clip: Clip, start: int, stop: int | None) -> int:
    """Return the end of a range of frames, or refuse a range that is empty or leaves the clip."""
    stop = len(clip.frames) if stop is None else stop
    if not 0 <= start < stop <= len(clip.frames):
        raise DataFormatError(
            "no such frames",
            where=clip.where,
            got=f"[{start}, {stop})",
            expected=f"a part of [0, {len(clip.frames)})",
        )
    return stop
