"""Which steps of which spike file belong to each frame of footage.

In: a stream or a folder of streams, and the names of a clip's frames in order. Out: the steps of
each file, and the pieces of each frame. A folder has a stream for all frames, or a file a frame: of
the same name, or, where the frames of a video have none of their own, in the same order.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

from vrtspike.datasets.frame_steps import Spans, align_log_spans, frame_spans, stream_spans
from vrtspike.datasets.index import ALIGN_LOG, listed
from vrtspike.datasets.info import INFO_FILE, DatasetInfo
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.stream import ARRAY_SUFFIXES, PACKED_SUFFIXES
from vrtspike.storage.names import in_order
from vrtspike.video.inspect import VideoInfo

logger = logging.getLogger(__name__)

SPIKE_FOLDER = "spike"
MAX_ROUNDING, MAX_UNEVEN = 1.5, 0.05
"""How far a frame's time may be from an even spacing, in units of the file and in frames."""


def find_spikes(
    clip: str,
    place: Path,
    names: list[str],
    info: DatasetInfo,
    video: VideoInfo | None,
    *,
    timed: bool,
) -> tuple[dict[str, int], Spans]:
    """Return the steps of each spike file of a clip, and the pieces that belong to each frame.

    The names of the frames of a `video` are only their numbers. `timed`: the rate in `info` is the
    camera's, so that a log in seconds can be read.
    """
    if place.is_dir() and (place / SPIKE_FOLDER).is_dir():
        place = place / SPIKE_FOLDER
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = [place / name for name in in_order(f.name for f in place.iterdir() if _packed(f))]
    else:
        raise DataFormatError("no spikes of this clip", where=place, fix="correct the path")
    wrong = [f for f in (files or place.glob("*")) if f.suffix.lower() in ARRAY_SUFFIXES]
    if wrong or not files:
        raise DataFormatError(
            "no bit-packed spikes here",
            where=wrong[0] if wrong else place,
            expected=", ".join(PACKED_SUFFIXES),
            fix="convert them: vrtspike convert FILE FILE.dat --axes ...",
        )
    steps = {str(file.absolute()): _steps(file, info) for file in files}
    if len(files) == 1 and (place.is_file() or len(names) > 1):
        return steps, _stream(clip, files[0], names, info, video, timed)
    return steps, _a_file_a_frame(place, files, names, info, video is not None)


def _packed(file: Path) -> bool:
    return file.suffix.lower() in PACKED_SUFFIXES and not file.name.startswith(".")


def _steps(file: Path, info: DatasetInfo) -> int:
    """Return the steps of a file; one that holds no whole number of them is refused."""
    spike, size = info.camera, file.stat().st_size
    steps, rest = divmod(size, spike.step_bytes)
    if rest or not steps:
        raise DataFormatError(
            "the file holds no whole number of steps",
            where=file,
            got=f"{size} bytes",
            expected=f"a multiple of {spike.step_bytes}, steps of {spike.height}x{spike.width}",
            fix="correct the height and width of the spike camera",
        )
    return steps


def _stream(
    clip: str,
    file: Path,
    names: list[str],
    info: DatasetInfo,
    video: VideoInfo | None,
    timed: bool,
) -> Spans:
    """Cut one stream into the steps of each frame."""
    each, steps, name = info.timeline.steps_per_frame, _steps(file, info), str(file.absolute())
    log = file.parent / ALIGN_LOG
    if log.is_file():
        if not timed:
            raise ConfigError(
                "the align log is in seconds, and nothing says the spike camera's rate",
                where=log,
                fix="give the frames a second with --fps, or a dataset.yaml",
            )
        return align_log_spans(log, clip, name, steps, names, info)
    if video is not None:
        _check_even(video, file)
    unmoved = not info.camera.time_offset_steps
    if steps // each != len(names) or (unmoved and _fits(steps, names, each)):
        raise DataFormatError(
            "frames and spikes are of different length",
            where=file,
            got=f"{len(names)} frames, {steps} steps = {steps / each:.1f} frames",
            expected=f"{len(names)} x {each} steps",
            fix=f"correct --steps-per-frame (steps_per_frame in {INFO_FILE})"
            + (f" to {steps // len(names)}" if steps % len(names) == 0 else "")
            + f", or say where each frame lies in an {ALIGN_LOG}",
        )
    if left := steps - len(names) * each - max(info.camera.time_offset_steps, 0):
        logger.warning(
            "%s: %d frames of %d steps leave the last %d of %d steps without a frame",
            *(file, len(names), each, left, steps),
        )
    starts = {frame: number * each for number, frame in enumerate(names)}
    return stream_spans(name, steps, starts, info)


def _fits(steps: int, names: list[str], each: int) -> bool:
    """Tell whether another number of steps a frame leaves no step over."""
    return steps % len(names) == 0 and steps // len(names) != each


def _check_even(video: VideoInfo, file: Path) -> None:
    """Refuse to cut a stream by the numbers of frames that are not evenly spaced in time."""
    if video.times is None:
        logger.warning(
            "%s: the times of the frames do not increase, so they are taken as evenly spaced, "
            "as steps of %s; if they are not, give an %s",
            *(video.path, file.name, ALIGN_LOG),
        )
        return
    if (count := len(video.times)) < 3:
        return
    first, apart = video.times[0], (video.times[-1] - video.times[0]) / (count - 1)
    off = max(abs(time - first - number * apart) for number, time in enumerate(video.times))
    if off > max(MAX_ROUNDING, MAX_UNEVEN * apart):
        waits = [float((b - a) * video.time_base) for a, b in pairwise(video.times)]
        raise DataFormatError(
            "the video's frames are not evenly spaced, and the stream is cut by their number",
            where=video.path,
            got=f"{min(waits):g} to {max(waits):g} s from a frame to the next",
            expected="one frame rate",
            fix=f"give an {ALIGN_LOG} beside {file.name} that says when each frame was exposed",
        )


def _a_file_a_frame(
    place: Path, files: list[Path], names: list[str], info: DatasetInfo, numbered: bool
) -> Spans:
    """Give each frame its file: that of its name, or of a video's frames in their order."""
    each = info.timeline.steps_per_frame
    by_name = {file.stem: file for file in files}
    lacking = [name for name in names if name not in by_name]
    if len(files) != len(names) or (lacking and not numbered):
        raise DataFormatError(
            "frames and spikes do not belong together",
            where=place,
            got=f"{len(names)} frames, {len(files)} spike files"
            + (f", none of {listed(lacking)}" if lacking and not numbered else ""),
            expected="a spike file for each frame, of the same name",
        )
    chosen = files if lacking else [by_name[name] for name in names]
    for file in chosen:
        if (found := _steps(file, info)) != each:
            raise DataFormatError(
                "the file holds another number of steps",
                where=file,
                got=f"{found} steps",
                expected=f"{each} steps a frame",
            )
    of_frame = zip(names, chosen, strict=True)
    return frame_spans({name: str(file.absolute()) for name, file in of_frame}, info)
