"""Where a restored clip goes, and what is there already.

A clip becomes a folder of PNG images or a video file. Beside the images (`restored.json`), or
beside the video (`<video>.json`), lies a record of what was restored with what. A clip whose record
is the same is done; anything else that is there is kept, unless it may be overwritten. Until all
frames are there, nothing of the final name is touched (`vrtspike.restoration.workspace`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vrtspike.datasets.footage import Footage
from vrtspike.errors import ConfigError, DataFormatError, ResourceError
from vrtspike.restoration.workspace import DELIVERING, Workspace
from vrtspike.storage.atomic import write_atomically
from vrtspike.storage.folder import check_target
from vrtspike.storage.json_text import parse_json_mapping
from vrtspike.storage.names import fault_of_length, is_plain
from vrtspike.storage.own_files import read_own
from vrtspike.video.image_file import read_image
from vrtspike.video.inspect import VIDEO_SUFFIXES
from vrtspike.video.write import CONTAINERS, check_video_target, write_video

RECORD, SPOOL = "restored.json", ".restoring"
Kind = Literal["png", "mp4", "mov", "mkv"]


@dataclass(frozen=True)
class ClipOutput:
    """The place of one clip's result."""

    place: Path
    """A folder of images, or a video file."""
    video: bool
    overwrite: bool
    fps: Fraction | None = None
    """Blurred frames a second, where these are images; None: what the camera or video says."""

    @property
    def record(self) -> Path:
        """Return the file that tells what was restored."""
        if self.video:
            return self.place.with_name(f"{self.place.name}.json")
        return self.place / RECORD

    @property
    def workspace(self) -> Path:
        """Return the working folder, hidden: in the result's folder if there is one, or beside."""
        if self.place.is_dir():
            return self.place / SPOOL
        name = f"{SPOOL}-{self.place.name}"
        if fault_of_length(name):
            name = f"{SPOOL}-{hashlib.sha256(os.fsencode(self.place.name)).hexdigest()}"
        return self.place.parent / name

    def is_done(self, identity: Mapping[str, Any], names: Sequence[str]) -> bool:
        """Tell whether this very result is there, with frames of these names.

        Raises ConfigError where something else is that may not be overwritten.
        """
        record = _read_record(self.record)
        if self.video and record is None and os.path.lexists(self.record):
            raise ConfigError(
                "a file that vrtspike did not write has the name of the result's record",
                where=self.record,
                fix="rename it, or give another --out",
            )
        if not self.place.exists() or (self.place.is_dir() and not self._others()):
            return False
        same = record is not None and record.get("identity") == _plain(identity)
        if record is not None and same and self._has_frames(record, names):
            return True
        if self.place.is_dir() == self.video:
            raise ConfigError(
                "the output has the name of a folder" if self.video else "the output is a file",
                where=self.place,
                fix="give another --out",
            )
        if not self.overwrite and not self._was_stopped(identity, names):
            raise ConfigError(
                "the output exists, and is kept",
                where=self.place,
                got=_what(record, same),
                fix="give another --out, or --overwrite",
            )
        return False

    def _others(self) -> list[Path]:
        """Return what lies in the result's folder beside the working folders."""
        return [entry for entry in self.place.iterdir() if not entry.name.startswith(SPOOL)]

    def _was_stopped(self, identity: Mapping[str, Any], names: Sequence[str]) -> bool:
        """Tell whether a stop came while this very result was moved into a folder without one.

        The mark of that is trusted where it is what we would write, and a frame that is there still
        waits in the working folder, too, for nobody else's place.
        """
        mark = _read_record(self.workspace / DELIVERING)
        if self.video or mark is None or mark != _mark(names, identity):
            return False
        waiting = Workspace(self.workspace, tuple(names))
        return not any(
            os.path.lexists(self.place / f"{name}.png") and os.path.lexists(waiting.image(number))
            for number, name in enumerate(names)
        )

    def check(self) -> None:
        """Refuse a place that cannot be written to, before the work."""
        for name in (self.place.name, self.record.name):
            if fault := fault_of_length(name):
                raise ConfigError(
                    "no disk takes this name",
                    where=name[:80],
                    got=fault,
                    fix="name a shorter --out",
                )
        if not self.video and self.place.is_symlink():
            raise ConfigError(
                "the output is a link to another place",
                where=self.place,
                fix="delete the link, or give another --out",
            )
        if self.video:
            check_video_target(self.place)
        else:
            check_target(self.place / RECORD)

    def check_rate(self, footage: Footage) -> None:
        """Refuse a video that nothing says the rate of, or two things, before the work."""
        if not self.video:
            return
        like = footage.video
        if like is None and self.fps is None:
            frame_rate(footage)
        elif like is not None and like.times is not None and self.fps is not None:
            raise ConfigError(
                "the frames keep the times of their video",
                where=footage.name,
                got=f"{float(self.fps):g} frames a second",
                fix="leave --fps away",
            )
        elif like is not None and not (like.times or like.rate or self.fps):
            raise _no_rate(footage)

    def publish(self, workspace: Workspace, footage: Footage, record: Mapping[str, Any]) -> None:
        """Put the finished frames of a workspace in their place, and delete the workspace."""
        workspace.check_whole(moved_to=self.place if self._moving(workspace, record) else None)
        # Something may have come there while frames were restored.
        self.is_done(record["identity"], workspace.names)
        text = f"{json.dumps(record, indent=2)}\n".encode()
        if self.video:
            # A record beside a video is of that video.
            self.record.unlink(missing_ok=True)
            self._write_video(workspace, footage)
            write_atomically(self.record, text)
        else:
            write_atomically(workspace.frames / RECORD, text)
            try:
                self._move(workspace, record)
            except OSError as error:
                raise ResourceError(
                    f"cannot put the frames in their place: {error.strerror}",
                    where=self.place,
                    fix="the same command tries again",
                ) from None
        workspace.remove()

    def _write_video(self, workspace: Workspace, footage: Footage) -> None:
        count, fps = len(workspace.names), self.fps
        frames = (read_image(workspace.image(number)) for number in range(count))
        if fps is None and footage.video is None:
            fps = frame_rate(footage)
        each = count // footage.frames
        write_video(self.place, frames, fps=fps, like=footage.video, each=each)

    def _move(self, workspace: Workspace, record: Mapping[str, Any]) -> None:
        """Give the folder of frames its name, or move them into the one that was there before.

        There the frames of an old result go, and what others put there stays. A stop in between is
        taken up by the next start.
        """
        workspace.drop_strangers(RECORD)
        if not self.place.exists():
            workspace.frames.rename(self.place)
            return
        mark, names = workspace.folder / DELIVERING, set(workspace.names)
        # Whose result is not to be replaced has none that is older.
        olds = (_read_record(mark), _read_record(self.record)) if self.overwrite else ()
        old = {name for record in olds for name in _names(record)}
        write_atomically(mark, json.dumps(_mark(old | names, record["identity"])).encode())
        # A record is of all that lies beside it.
        self.record.unlink(missing_ok=True)
        for name in old - names:
            (self.place / f"{name}.png").unlink(missing_ok=True)
        for file in sorted(workspace.frames.iterdir(), key=lambda file: file.name == RECORD):
            file.replace(self.place / file.name)

    def _moving(self, workspace: Workspace, record: Mapping[str, Any]) -> bool:
        """Tell whether some of these very frames may have been moved already."""
        found = _read_record(workspace.folder / DELIVERING)
        return found is not None and found["identity"] == _plain(record["identity"])

    def _has_frames(self, record: Mapping[str, Any], names: Sequence[str]) -> bool:
        """Tell whether a record is of these frames, and they are there."""
        return record["frame_names"] == list(names) and (
            self.video or all((self.place / f"{name}.png").is_file() for name in names)
        )


def _check_lengths(*paths: Path) -> None:
    """Refuse names that are too long, before a disk does, which then says no more than that."""
    for name in dict.fromkeys(part for path in paths for part in path.parts):
        if fault := fault_of_length(name):
            raise ConfigError(
                "no disk takes this name", where=name[:80], got=fault, fix="name a shorter --out"
            )


def _mark(names: Iterable[str], identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the mark says that lies in the workspace while frames are moved."""
    return {"frame_names": sorted(names), "identity": _plain(identity)}


def _read_record(file: Path) -> dict[str, Any] | None:
    """Return a record, or None where there is none of ours: anybody may have written it."""
    try:
        found = parse_json_mapping(read_own(file))
    except (OSError, ValueError, DataFormatError):
        return None
    names = found.get("frame_names")
    ours = isinstance(names, list) and isinstance(found.get("identity"), dict)
    return found if ours and all(isinstance(name, str) for name in names or ()) else None


def _names(record: Mapping[str, Any] | None) -> list[str]:
    """Return the names of a record's frames; those that lead out of a folder are none of ours."""
    names = [] if record is None else record["frame_names"]
    return [name for name in names if is_plain(f"{name}.png")]


def _what(record: Mapping[str, Any] | None, same: bool) -> str:
    """Say what an output is that is there."""
    if record is None:
        return "nothing that vrtspike restored"
    return f"a result {'with frames missing' if same else 'of other weights, input or settings'}"


def frame_rate(footage: Footage) -> Fraction:
    """Return the frames a second of a clip; ConfigError where nothing says it."""
    if footage.fps is None:
        raise _no_rate(footage)
    return footage.fps


def _no_rate(footage: Footage) -> ConfigError:
    """Return the error on a video of frames that nothing says the rate of."""
    return ConfigError(
        "nothing says how many frames a second there are", where=footage.name, fix="give --fps"
    )


def clip_outputs(
    names: list[str],
    out: Path,
    *,
    single: bool,
    kind: Kind | None,
    overwrite: bool,
    fps: Fraction | None,
) -> list[ClipOutput]:
    """Return where each clip goes: a single one to `out` itself, several to places in it."""
    _check_lengths(out)
    out = out.resolve()  # a link's target keeps its name, and stays where it is
    suffix = out.suffix.lower()
    named_video = suffix in CONTAINERS and not out.is_dir()
    if suffix in VIDEO_SUFFIXES and not named_video and not out.is_dir():
        check_video_target(out)
    if named_video and kind not in (None, suffix[1:]):
        raise ConfigError(
            "the output is named as a video of another format",
            where=out,
            got=f"--format {kind}",
            fix="leave --format away, or name a folder",
        )
    if named_video and not single:
        raise ConfigError(
            "several clips, and one video to write",
            where=out,
            got=f"{len(names)} clips",
            fix="name a folder as --out, with --format " + suffix[1:],
        )
    if out.exists() and not out.is_dir() and not named_video:
        raise DataFormatError("the output must be a folder or a video", where=out, got="a file")
    if named_video:
        return [ClipOutput(out, True, overwrite, fps)]
    if kind in (None, "png"):
        places = [out] if single else [out / name for name in names]
        return [ClipOutput(place, False, overwrite) for place in places]
    return [ClipOutput(out / f"{name}.{kind}", True, overwrite, fps) for name in names]


def _plain(identity: Mapping[str, Any]) -> Any:
    """Return values as they come back from JSON."""
    return json.loads(json.dumps(identity))
