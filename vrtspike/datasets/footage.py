"""Footage: blurred video to be restored, with the spikes beside it; nobody has the sharp frames.

In: a video file, a folder of images, or a folder of several such clips; for spikes a stream, a
folder with a file for each frame, or a folder that has one of these for each clip. Out: `Footage`,
an index small enough to send between processes, and `FootageReader`, which reads windows of it.

    input                                  spikes
    clip.mp4 or clip/*.png                 clip.dat, or spike/*.dat (one a frame, names alike)
    clips/<name>.mp4                       spikes/<name>.dat, spikes/<name>/*.dat,
    clips/<name>/[blurred/]*.png           or spikes/<name>/spike/*.dat

One stream for all frames is cut into `steps_per_frame` steps each, or as its `align.csv` says.
What the camera is nobody can see in a stream: `dataset.yaml` beside or above the spikes says it, or
the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from jaxtyping import Float, UInt8

from vrtspike.datasets.clip import Clip, FrameFiles, read_frames
from vrtspike.datasets.footage_steps import find_spikes
from vrtspike.datasets.frame_steps import Spans
from vrtspike.datasets.index import listed
from vrtspike.datasets.info import INFO_FILE, SEQUENCE_FILE, DatasetInfo, check_geometry, parse_info
from vrtspike.datasets.represent import represent_frames
from vrtspike.errors import DataFormatError
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.stream import PACKED_SUFFIXES
from vrtspike.spikes.timeline import Timeline
from vrtspike.storage.folder import Folder
from vrtspike.storage.names import in_order
from vrtspike.video.image_file import IMAGE_SUFFIXES, open_image, read_image, shown_size
from vrtspike.video.inspect import (
    VIDEO_SUFFIXES,
    VideoInfo,
    frame_files,
    holds_images,
    inspect_video_file,
)
from vrtspike.video.read import VideoReader

BLURRED_FOLDERS = ("blurred", "blur")
INFO_DEPTH = 3
"""Folders above the spikes in which `dataset.yaml` is looked for."""


@dataclass(frozen=True)
class Source:
    """Where one clip lies; nothing of it has been read."""

    name: str
    frames: Path
    """A video file, or a folder of images."""
    spikes: Path | None
    """A stream, or a folder of streams; None: there are none."""


@dataclass(frozen=True)
class Footage:
    """A clip that was opened: its frames, and the pieces of streams that belong to each."""

    clip: Clip
    video: VideoInfo | None
    """The file that holds the frames; None: they are images."""
    fps: Fraction | None
    """Frames a second; None: nothing says it."""

    @property
    def name(self) -> str:
        """Return the clip's name."""
        return self.clip.sequence

    @property
    def frames(self) -> int:
        """Return the number of frames."""
        return len(self.clip.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Return rows and columns of a frame."""
        return self.clip.info.frame.height, self.clip.info.frame.width


def find_sources(frames: Path, spikes: Path | None) -> list[Source]:
    """Find the clips below a place, in order of their names, each with its spikes.

    Raises DataFormatError where there is none, or where the spikes are not there.
    """
    for place, what in ((frames, "input"), (spikes, "spikes")):
        if place is not None and not place.exists():
            raise DataFormatError(f"no such {what}", where=place, fix="correct the path")
    single = _frames_of(frames)
    if single is not None:
        whole = single.resolve()
        folder = whole.parent if whole.name in BLURRED_FOLDERS else whole
        return [Source(whole.stem if whole.is_file() else folder.name, single, spikes)]
    clips = {}
    for entry in sorted(frames.iterdir()):
        if entry.name.startswith(".") or (entry.is_file() and not _is_video(entry)):
            continue
        place = _frames_of(entry)
        if place is not None:
            name = entry.stem if entry.is_file() else entry.name
            if name in clips:
                raise DataFormatError("two clips have one name", where=frames, got=name)
            clips[name] = place
    if not clips:
        raise DataFormatError(
            "no images and no video here",
            where=frames,
            expected=f"a video file, images ({', '.join(IMAGE_SUFFIXES)}), or folders of images",
        )
    return [
        Source(name, clips[name], None if spikes is None else _spikes_of(spikes, name))
        for name in in_order(clips)
    ]


def open_footage(source: Source, camera: Mapping[str, Any] | None = None) -> Footage:
    """Index one clip; what does not fit together is a DataFormatError.

    `camera` has the entries of a `dataset.yaml` but `frame`, of whatever is not in such a file.
    """
    video = None
    if not holds_images(source.frames):
        video = inspect_video_file(source.frames)
        size = (video.height, video.width)
        frames = [FrameFiles(f"{number:06d}", None, None) for number in range(video.frames)]
    else:
        files = frame_files(source.frames)
        height, width, _ = read_image(files[0]).shape
        size = (height, width)
        _check_sizes(files, size)
        frames = [FrameFiles(file.stem, str(file.absolute()), None) for file in files]
        if len({frame.name for frame in frames}) < len(frames):
            raise DataFormatError("two images of one frame", where=source.frames)
    info, fps = _describe(source, size, camera, None if video is None else video.rate)
    steps: dict[str, int] = {}
    spans: Spans = {}
    if source.spikes is not None:
        names = [frame.name for frame in frames]
        steps, spans = find_spikes(source.name, source.spikes, names, info, video, timed=bool(fps))
        if lacking := [name for name in names if name not in spans]:
            raise DataFormatError(
                "the spikes do not reach over all frames",
                where=source.spikes,
                got=f"no steps for {listed(lacking)}",
                fix="leave these frames out",
            )
    check_geometry(info, source.spikes)
    indexed = tuple(
        FrameFiles(frame.name, frame.blurred, None, spans.get(frame.name, ())) for frame in frames
    )
    folder = Folder.at(source.frames.absolute().parent)
    return Footage(Clip(".", source.name, folder, indexed, info, steps), video, fps)


class FootageReader:
    """Read windows of a clip: frames, and what a model sees of the spikes. A context manager."""

    def __init__(self, footage: Footage) -> None:
        self.footage = footage
        self._video = None if footage.video is None else VideoReader(footage.video)

    def __enter__(self) -> Self:
        if self._video is not None:
            self._video.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._video is not None:
            self._video.__exit__(*error)

    def frames(self, start: int, stop: int) -> UInt8[np.ndarray, "t h w 3"]:
        """Read the blurred frames [start, stop)."""
        if self._video is None:
            return read_frames(self.footage.clip, "blurred", start, stop)
        return self._video.read(start, stop)

    def voxels(
        self,
        start: int,
        stop: int,
        represent: SpikeRepresentation,
        timeline: Timeline | None = None,
    ) -> Float[np.ndarray, "t c hs ws"]:
        """Return what a model sees of the spikes of the frames [start, stop).

        `timeline` sets another target instant than the clip's own.
        """
        return represent_frames(self.footage.clip, start, stop, represent, timeline=timeline)


def holds_one_clip(frames: Path) -> bool:
    """Tell whether a place is a clip itself, and no folder of clips."""
    return _frames_of(frames) is not None


def _frames_of(place: Path) -> Path | None:
    """Return what holds a clip's frames: this file, or this folder of images or its `blurred`."""
    if place.is_file():
        return place
    for folder in (*(place / name for name in BLURRED_FOLDERS), place):
        if folder.is_dir() and frame_files(folder):
            videos = [file.name for file in folder.iterdir() if _is_video(file)]
            if videos:
                raise DataFormatError(
                    "images and videos in one folder",
                    where=folder,
                    got=f"images, and {listed(videos)}",
                    fix="name one of the videos, or keep them apart",
                )
            return folder
    return None


def _is_video(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in VIDEO_SUFFIXES


def _check_sizes(files: list[Path], size: tuple[int, int]) -> None:
    """Refuse images of different sizes; only their headers are read."""
    for file in files[1:]:
        try:
            with open_image(file) as image:
                found = shown_size(image)
        except (OSError, SyntaxError, ValueError):
            continue  # said when it is read, with the reason
        if found != size:
            raise DataFormatError(
                "the images are of different sizes",
                where=file,
                got="{}x{}".format(*found),
                expected="{}x{}, as the first".format(*size),
            )


def _spikes_of(spikes: Path, name: str) -> Path:
    """Return where the spikes of one of several clips are; `open_footage` says what is missing."""
    if spikes.is_file():
        raise DataFormatError(
            "one stream for several clips",
            where=spikes,
            expected="a folder with a stream or a folder for each clip, of the clip's name",
        )
    files = [spikes / f"{name}{suffix}" for suffix in PACKED_SUFFIXES]
    return next((file for file in files if file.is_file()), spikes / name)


def _describe(
    source: Source,
    size: tuple[int, int],
    camera: Mapping[str, Any] | None,
    fps: Fraction | None,
) -> tuple[DatasetInfo, Fraction | None]:
    """Return what is known of a clip, and its frames a second; `fps` is what a video says."""
    frame = {"height": size[0], "width": size[1]}
    if source.spikes is None:
        info = DatasetInfo.model_validate({"frame": frame, "source": str(source.frames)})
        return info, fps
    if camera is not None:
        spike, steps = dict(camera["spike"]), camera["steps_per_frame"]
        # Without a clock of the camera's, its steps are counted and not timed.
        known = Fraction(spike["rate_hz"]) / steps if "rate_hz" in spike else fps
        spike["rate_hz"] = float((known or 1) * steps)
        entries = {"source": str(source.spikes), **camera, "spike": spike, "frame": frame}
        text = yaml.safe_dump(entries).encode()
        return parse_info(text, "the camera as it was described"), known
    place = source.spikes.absolute()
    above = [folder / INFO_FILE for folder in (place, *place.parents)[: INFO_DEPTH + 1]]
    file = next((file for file in above if file.is_file()), None)
    if file is None:
        raise DataFormatError(
            "nothing says what the spike camera is",
            where=source.spikes,
            expected=f"{INFO_FILE} beside or above the spikes",
            fix="give --height, --width, --threshold and --steps-per-frame",
        )
    changes = source.frames.parent / SEQUENCE_FILE
    own = (changes.read_bytes(), str(changes)) if changes.is_file() else None
    info = parse_info(file.read_bytes(), str(file), own)
    if info.frame.model_dump() != frame:
        raise DataFormatError(
            "the frames are of another size than their description says",
            where=source.frames,
            got="{}x{}".format(*size),
            expected=f"{info.frame.height}x{info.frame.width} ({file})",
        )
    rate = Fraction(info.camera.rate_hz) / info.timeline.steps_per_frame
    return info, fps or rate.limit_denominator(1001)
