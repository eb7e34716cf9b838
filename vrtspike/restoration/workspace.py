"""The working folder of a clip that is being restored: what is done stays done.

Segments of a clip (runs of its windows) may be restored by several processes, in any order and over
several starts. Frames that are final are images; of frames that windows of two segments share, each
segment leaves its weighted sum, and whoever follows the clip adds them up.

    frames/<name>.png            final frames
    part-<frame>-<first>.npy     a segment's share of a frame, float32 (3, h, w), and its CRC-32
    done-<first>-<stop>.json     a segment whose frames and shares are all there: its facts, and
                                 their CRC-32
    identity.json                what is being restored with what; another identity starts anew
    tried-<first>                a byte for each worker that began a segment
    failed                       no more is done for this clip: the error of a segment of it
    lock                         held by the process that follows the clip
    delivering                   frames are being moved into a folder that was there before: the
                                 names of ours in it

The folder lies beside the result, on the same disk, and its name starts with a dot; where the
result's folder is there already, it lies in that. The frames take the result's place when all of
them are there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vrtspike.errors import (
    DataFormatError,
    ResourceError,
    VrtSpikeError,
    error_from_text,
    error_text,
    one_line,
)
from vrtspike.metrics.image import to_uint8
from vrtspike.restoration.tiling import Tile
from vrtspike.storage.atomic import whole_file, write_atomically
from vrtspike.storage.json_text import parse_json_mapping
from vrtspike.storage.lock import locked
from vrtspike.storage.own_files import delete, make_own_folder, open_own, read_own
from vrtspike.video.image_file import png_is_whole

FAILED, LOCK, DELIVERING = "failed", "lock", "delivering"
IDENTITY = "identity.json"
SHARE = re.compile(r"part-([0-9]{1,9})-([0-9]{1,9})\.npy")
DONE = re.compile(r"done-([0-9]{1,9})-([0-9]{1,9})\.json")
FACTS = {"frames": int, "seconds": int | float, "tile": int | None, "memory": int}
"""What a segment's note says beside its windows."""
SUM_BYTES = 4
"""Of the CRC-32 that a share ends with."""
PNG_LEVEL = 2
"""On real frames 2.7 to 4.2 times as fast as Pillow's own level, for 4 to 25 % more bytes."""


@dataclass(frozen=True)
class Workspace:
    """The folder, and the names of the clip's frames."""

    folder: Path
    names: tuple[str, ...]

    @property
    def frames(self) -> Path:
        """Return the folder of the final frames."""
        return self.folder / "frames"

    @contextmanager
    def begun(self, identity: Mapping[str, Any], taken: Exception) -> Iterator[None]:
        """Hold the folder, a new one or one of the same identity; any other's content is deleted.

        Raises `taken` while another process holds it.
        """
        with ExitStack() as stack:
            try:
                make_own_folder(self.folder)
                stack.enter_context(locked(self.folder / LOCK, taken))
                self._begin(json.dumps(identity, sort_keys=True).encode())
            except OSError as error:
                raise ResourceError(
                    f"cannot write beside the output: {error.strerror}", where=self.folder.parent
                ) from None
            yield

    def _begin(self, identity: bytes) -> None:
        """Keep what is of this identity, and delete everything else."""
        note = self.folder / IDENTITY
        if _read_note(note) != identity or not _is_folder(self.frames):
            self._empty()
            self.frames.mkdir()
        self._drop_remains()
        write_atomically(note, identity)

    def _empty(self) -> None:
        for entry in self.folder.iterdir():
            if entry.name not in (LOCK, DELIVERING):
                delete(entry)

    def _drop_remains(self) -> None:
        """Delete what a stop left: marks, files that were being written, and the shares of segments
        that are not done, for others may begin elsewhere; and whatever we would not write."""
        kept = {LOCK, DELIVERING, IDENTITY, self.frames.name}
        kept |= {_done_name(facts["first"], facts["stop"]) for facts in self.done()}
        done = {facts["first"] for facts in self.done()}
        for files in self._shares().values():
            kept |= {file.name for segment, file in files.items() if segment in done}
        for entry in self.folder.iterdir():
            if entry.name not in kept:
                delete(entry)
        self.drop_strangers()

    def drop_strangers(self, *ours: str) -> None:
        """Delete what lies among the final frames and is none, nor of the names in `ours`."""
        kept = {f"{name}.png" for name in self.names}.union(ours)
        for entry in self.frames.iterdir():
            if entry.name not in kept or not _is_file(entry):
                delete(entry)

    def image(self, frame: int) -> Path:
        """Return the file of a final frame."""
        return self.frames / f"{self.names[frame]}.png"

    def write_frame(self, frame: int, restored: Float[Tensor, "3 h w"]) -> None:
        """Write a frame that is final."""
        write_image(self.image(frame), restored)

    def write_share(self, frame: int, segment: int, restored: Float[Tensor, "3 h w"]) -> None:
        """Write what the segment that starts at a window gives to a frame."""
        content = BytesIO()  # into a file, NumPy does not say why it cannot write
        np.save(content, restored.numpy())
        content.write(crc32(content.getbuffer()).to_bytes(SUM_BYTES, "little"))
        with whole_file(self.folder / f"part-{frame}-{segment}.npy") as temporary:
            temporary.write_bytes(content.getbuffer())

    def note_attempt(self, first: int, most: int) -> None:
        """Note that a worker begins a segment; raise ResourceError where `most` have died of it."""
        note = self.folder / f"tried-{first}"
        tried = note.lstat().st_size if _is_file(note) else 0
        if tried >= most:
            raise ResourceError(
                "workers die of this clip",
                where=self.folder,
                got=f"{tried} attempts at one part of it",
                fix="give less with --memory, a smaller --tile or fewer --tile-frames",
            )
        with suppress(OSError):
            opened = open_own(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with open(opened, "ab") as file:
                file.write(b".")

    def mark_done(self, first: int, stop: int, facts: Mapping[str, Any]) -> None:
        """Note that the windows [first, stop) are restored and written."""
        noted = {**facts, "first": first, "stop": stop}
        text = json.dumps({**noted, "sum": _sum_of(noted)})
        write_atomically(self.folder / _done_name(first, stop), text.encode())

    def done(self) -> list[dict[str, Any]]:
        """Return the facts of the segments that are done, in order.

        A note that is not what we write is none, and its segment is restored again.
        """
        found: list[dict[str, Any]] = []
        stop = 0
        for first, last, file in sorted(self._done_files()):
            facts = _facts_of(_read_note(file))
            # Segments do not overlap, and there are no more windows than frames.
            if facts and (facts["first"], facts["stop"]) == (first, last) and first >= stop:
                found.append(facts)
                stop = last
        return found

    def _done_files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield the notes whose names are of windows that the clip may have."""
        for file in self.folder.glob("done-*.json"):
            if match := DONE.fullmatch(file.name):
                first, stop = int(match[1]), int(match[2])
                if first < stop <= len(self.names):
                    yield first, stop, file

    def open_windows(self, count: int) -> list[range]:
        """Return the runs of windows that no segment has done yet."""
        done = {n for facts in self.done() for n in range(facts["first"], facts["stop"])}
        groups = groupby(range(count), key=lambda number: number in done)
        runs = [list(group) for is_done, group in groups if not is_done]
        return [range(run[0], run[-1] + 1) for run in runs]

    def fail(self, error: VrtSpikeError) -> None:
        """Have other segments of this clip end at once, with the same error."""
        with suppress(VrtSpikeError):  # a full disk, say: the others will see it themselves
            write_atomically(self.folder / FAILED, error_text(error).encode())

    @property
    def failure(self) -> VrtSpikeError | None:
        """Return the error of a segment that failed."""
        note = self.folder / FAILED
        try:
            return error_from_text(read_own(note))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, DataFormatError) as error:
            return _damaged(note, error)

    def segments(self) -> list[range]:
        """Return the windows of the segments that are done, in order."""
        return [range(facts["first"], facts["stop"]) for facts in self.done()]

    def add_up(self, windows: Sequence[Tile], segments: Sequence[range]) -> None:
        """Write the frames that segments share; `segments` are those that are done, in order."""
        done = {n for segment in segments for n in segment}
        for frame, files in self._shares().items():
            holding = {n for n, w in enumerate(windows) if w.start <= frame < w.stop}
            if not holding <= done:
                continue
            wanted = [segment.start for segment in segments if holding & set(segment)]
            if wanted == list(files):
                self.write_frame(frame, _sum(list(files.values())))
            elif not self.image(frame).is_file():
                raise _gone(self.folder, f"{len(files)} of {len(wanted)} shares of frame {frame}")
            # Otherwise they were added up, and a stop came while they were deleted.
            for file in files.values():
                file.unlink()

    def _shares(self) -> dict[int, dict[int, Path]]:
        """Return the files of shares by frame and segment, in order of both."""
        found = sorted(
            (int(match[1]), int(match[2]), file)
            for file in self.folder.glob("part-*.npy")
            if (match := SHARE.fullmatch(file.name)) and int(match[1]) < len(self.names)
        )
        return {
            frame: {segment: file for _, segment, file in files}
            for frame, files in groupby(found, key=itemgetter(0))
        }

    def check_whole(self, moved_to: Path | None = None) -> None:
        """Raise DataFormatError unless every frame is there, up to its end, or was moved on."""
        lacking = [
            name
            for n, name in enumerate(self.names)
            if not _is_whole(self.image(n))
            and (moved_to is None or not _is_whole(moved_to / f"{name}.png"))
        ]
        if lacking:
            raise _gone(
                self.frames,
                f"{len(lacking)} of {len(self.names)} missing or cut off, first {lacking[0]}",
            )

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_image(path: Path, restored: Float[Tensor, "3 h w"]) -> None:
    """Write a frame as an 8-bit PNG, whole or not at all."""
    pixels: UInt8[np.ndarray, "h w 3"] = rearrange(to_uint8(restored), "c h w -> h w c").numpy()
    with whole_file(path) as temporary:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.save(temporary, format="PNG", compress_level=PNG_LEVEL)


def _sum(files: list[Path]) -> Float[Tensor, "3 h w"]:
    """Add up shares."""
    shares = [_read_share(file) for file in files]
    for share in shares[1:]:
        if share.shape != shares[0].shape:
            raise _gone(files[0].parent, "shares of different sizes")
        shares[0] += share
    return shares[0]


def _read_share(file: Path) -> Float[Tensor, "3 h w"]:
    """Read a share, and check its sum."""
    try:
        content = memoryview(read_own(file))
        array, found = content[:-SUM_BYTES], content[-SUM_BYTES:]
        if crc32(array).to_bytes(SUM_BYTES, "little") != found:
            raise ValueError("its sum differs")
        share = np.load(BytesIO(array))
        if share.dtype != np.float32 or share.ndim != 3 or len(share) != 3:
            raise ValueError(f"{share.dtype} of shape {share.shape}")
    except (OSError, ValueError, EOFError, SyntaxError, DataFormatError) as error:
        raise _gone(file.parent, f"a share that is damaged: {one_line(error, 100)}") from None
    return torch.from_numpy(share)


def _done_name(first: int, stop: int) -> str:
    return f"done-{first}-{stop}.json"


def _sum_of(facts: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a note."""
    return crc32(json.dumps(facts, sort_keys=True).encode())


def _facts_of(note: bytes | None) -> dict[str, Any] | None:
    """Return the facts of a segment, or None where a note is not one of ours."""
    with suppress(ValueError, TypeError, KeyError):
        facts = parse_json_mapping(note or b"")
        if facts.pop("sum") == _sum_of(facts) and all(
            isinstance(facts[name], kind) for name, kind in FACTS.items()
        ):
            return facts
    return None


def _read_note(file: Path) -> bytes | None:
    """Return what a note holds; None where there is none of ours."""
    with suppress(OSError, DataFormatError):
        return read_own(file)
    return None


def _is_folder(path: Path) -> bool:
    """Tell whether this is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    """Tell whether this is a file, and no link to one."""
    return path.is_file() and not path.is_symlink()


def _is_whole(image: Path) -> bool:
    """Tell whether a PNG file is there, and its sums are right."""
    try:
        with open(open_own(image, os.O_RDONLY), "rb") as file:
            return png_is_whole(file)
    except (OSError, DataFormatError):
        return False


def _damaged(note: Path, error: Exception) -> DataFormatError:
    """Return the error on a note that is not what was written."""
    return DataFormatError(
        "a note of the restoration is damaged",
        where=note,
        got=one_line(error, 100),
        fix="restore the clip again: delete the working folder",
    )


def _gone(folder: Path, got: str) -> DataFormatError:
    """Return the error on a workspace whose files are not what was written."""
    return DataFormatError(
        "restored frames are gone",
        where=folder,
        got=got,
        fix="restore the clip again: delete the working folder",
    )
