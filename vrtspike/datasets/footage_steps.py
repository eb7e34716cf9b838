"""Which steps of which spike file belong to each frame of footage.

In: a stream or a folder of streams, and the names of a clip's frames in order. Out: the steps of
each file, and the pieces of each frame. A folder has a stream for all frames, or a file a frame: of
the same name, or, where the frames of a video have none of their own, in the same order.
"""

from __future__ import annotations

from pathlib import Path

from vrtspike.datasets.frame_steps import Spans, align_log_spans, frame_spans, stream_spans
from vrtspike.datasets.index import ALIGN_LOG, listed
from vrtspike.datasets.info import DatasetInfo
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.spikes.stream import ARRAY_SUFFIXES, PACKED_SUFFIXES
from vrtspike.storage.names import in_order

SPIKE_FOLDER = "spike"


def find_spikes(
    clip: str, place: Path, names: list[str], info: DatasetInfo, *, numbered: bool, timed: bool
) -> tuple[dict[str, int], Spans]:
    """Return the steps of each spike file of a clip, and the pieces that belong to each frame.

    `numbered`: the frames' names are only their numbers. `timed`: the rate in `info` is the
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
        return steps, _stream(clip, files[0], names, info, timed)
    return steps, _a_file_a_frame(place, files, names, info, numbered)


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


def _stream(clip: str, file: Path, names: list[str], info: DatasetInfo, timed: bool) -> Spans:
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
    if steps // each != len(names):
        raise DataFormatError(
            "frames and spikes are of different length",
            where=file,
            got=f"{len(names)} frames, {steps} steps = {steps / each:.1f} frames",
            expected=f"{len(names)} x {each} steps",
            fix=f"correct --steps-per-frame, or say where each frame lies in an {ALIGN_LOG}",
        )
    starts = {frame: number * each for number, frame in enumerate(names)}
    return stream_spans(name, steps, starts, info)


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
