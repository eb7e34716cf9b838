"""The working folder of a clip that is being restored: what is done stays done.

Segments of a clip (runs of its windows) may be restored by several processes, in any order and over
several starts. Frames that are final are images; of frames that windows of two segments share, each
segment leaves its weighted sum, and whoever follows the clip adds them up.

    frames/<name>.png            final frames
    part-<frame>-<first>.npy     a segment's share of a frame, float32 (3, h, w)
    done-<first>-<stop>.json     a segment whose frames and shares are all there: its facts
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
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from os import SEEK_END
from pathlib import Path
from typing import Any

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
from vrtspike.inference.tiling import Tile
from vrtspike.lock import locked
from vrtspike.metrics import to_uint8
from vrtspike.storage import write_atomically
from vrtspike.whole_file import TEMPORARY, whole_file

FAILED, LOCK, DELIVERING = "failed", "lock", "delivering"
PNG_END = b"IEND\xaeB`\x82"
"""What a PNG file that is whole ends with."""
PNG_LEVEL = 2
"""On real frames 2.7 to 4.2 times as fast as Pillow's own level, for 4 to 25 % more bytes."""


@dataclass(frozen=True)
class Spool:
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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cannot write beside the output: {error.strerror}", where=self.folder.parent
            ) from None
        with locked(self.folder / LOCK, taken):
            note = self.folder / "identity.json"
            text = json.dumps(identity, sort_keys=True).encode()
            if not note.is_file() or note.read_bytes() != text:
                self._empty()
            self.frames.mkdir(exist_ok=True)
            self._drop_remains()
            write_atomically(note, text)
            yield

    def _empty(self) -> None:
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in (LOCK, DELIVERING):
                entry.unlink()

    def _drop_remains(self) -> None:
        """Delete what a stop left: marks, files that were being written, and the shares of segments
        that are not done, for others may begin elsewhere."""
        remains = [self.folder / FAILED, *self.folder.glob("tried-*")]
        for folder in (self.folder, self.frames):
            remains += folder.glob(f"{TEMPORARY}*")
        for file in remains:
            file.unlink(missing_ok=True)
        done = {facts["first"] for facts in self.done()}
        for files in self._shares().values():
            for segment, file in files.items():
                if segment not in done:
                    file.unlink()

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
        with whole_file(self.folder / f"part-{frame}-{segment}.npy") as temporary:
            temporary.write_bytes(content.getbuffer())

    def note_attempt(self, first: int, most: int) -> None:
        """Note that a worker begins a segment; raise ResourceError where `most` have died of it."""
        note = self.folder / f"tried-{first}"
        tried = note.stat().st_size if note.is_file() else 0
        if tried >= most:
            raise ResourceError(
                "workers die of this clip",
                where=self.folder,
                got=f"{tried} attempts at one part of it",
                fix="give less with --memory, a smaller --tile or fewer --tile-frames",
            )
        with suppress(OSError), note.open("ab") as file:
            file.write(b".")

    def mark_done(self, first: int, stop: int, facts: Mapping[str, Any]) -> None:
        """Note that the windows [first, stop) are restored and written."""
        text = json.dumps({**facts, "first": first, "stop": stop})
        write_atomically(self.folder / f"done-{first}-{stop}.json", text.encode())

    def done(self) -> list[dict[str, Any]]:
        """Return the facts of the segments that are done, in order."""
        found = []
        for file in self.folder.glob("done-*.json"):
            with suppress(ValueError):  # a crash of the machine may leave an empty file
                found.append(json.loads(file.read_bytes()))
        return sorted(found, key=lambda facts: int(facts["first"]))

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
            return error_from_text(note.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
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
            (int(frame), int(segment), file)
            for file in self.folder.glob("part-*.npy")
            for _, frame, segment in [file.stem.split("-")]
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
    try:
        shares = [torch.from_numpy(np.load(file)) for file in files]
    except (OSError, ValueError, EOFError) as error:
        raise _gone(files[0].parent, f"a share that is damaged: {one_line(error, 100)}") from None
    for share in shares[1:]:
        shares[0] += share
    return shares[0]


def _is_whole(image: Path) -> bool:
    """Tell whether a PNG file is there up to its end."""
    try:
        with image.open("rb") as file:
            file.seek(-len(PNG_END), SEEK_END)
            return file.read() == PNG_END
    except OSError:
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
    """Return the error on a spool whose files are not what was written."""
    return DataFormatError(
        "restored frames are gone",
        where=folder,
        got=got,
        fix="restore the clip again: delete the working folder",
    )
