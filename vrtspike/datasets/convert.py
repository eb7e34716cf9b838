"""From any layout to ours: images are copied as they are, spikes become a `.dat` for each frame.

What the source says by its layout is written down: geometry, rate, threshold and times in
`dataset.yaml`, and in a sequence's `sequence.yaml` where it differs from the first one. A
registration or a time offset is applied, so the copy needs neither. Sequences are written whole or
not at all, and those that are there are not written again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from vrtspike.config.choices import LayoutName
from vrtspike.datasets.clip import FRAME_KINDS, Clip, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.info import SEQUENCE_FILE, DatasetInfo, write_changes
from vrtspike.datasets.writer import begin, finish, is_written, new_sequence
from vrtspike.errors import DataFormatError
from vrtspike.spikes.packed_writer import write_dat


def convert(
    source: str | os.PathLike[str],
    out: Path,
    layout: LayoutName,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a dataset of some layout as one of ours; return how many sequences it has."""
    dataset = open_dataset(source, layout)
    names = [(split, sequence) for split in dataset.splits for sequence in dataset.sequences(split)]
    if not names:
        raise DataFormatError(
            "the folder holds no sequence of this layout",
            where=dataset.folder,
            got=f"layout {layout}",
        )
    clips = [dataset.clip(*name) for name in names]
    usual = converted_info(clips[0])
    begin(out, usual)
    for done, clip in enumerate(clips, 1):
        if not is_written(out, clip.split, clip.sequence):
            with clip.local() as here:
                _write(here, out, usual)
        if progress is not None:
            progress(done, len(clips))
    finish(out)
    return len(clips)


def converted_info(clip: Clip) -> DatasetInfo:
    """Return what is known of a sequence once its spikes are registered and written by frame."""
    info = clip.info
    source = f"{clip.folder}: {info.source}"
    if info.spike is None:
        return info.model_copy(update={"source": source})
    height, width = info.spike.grid
    changes = {
        "height": height,
        "width": width,
        "bit_order": "little",
        "flip": True,
        "time_offset_steps": 0,
        "registration": None,
    }
    spike = info.spike.model_copy(update=changes)
    continuous = info.continuous and _follow_one_another(clip)
    return info.model_copy(update={"spike": spike, "continuous": continuous, "source": source})


def _follow_one_another(clip: Clip) -> bool:
    """Tell whether each frame's steps begin where those of the frame before end."""
    if len(clip.steps) != 1:
        return True  # a file a frame: `continuous` says it
    spans = [frame.spikes for frame in clip.frames]
    return all(a[-1].stop == b[0].start for a, b in pairwise(spans))


def _write(clip: Clip, out: Path, usual: DatasetInfo) -> None:
    """Write one sequence."""
    if clip.frames and clip.frames[0].blurred is None:
        raise DataFormatError(
            "the sequence has no frames",
            where=clip.where,
            expected="blurred and sharp frames",
            fix="convert a single stream: `vrtspike convert FILE.dat OUT.npz`",
        )
    with new_sequence(out, clip.split, clip.sequence) as folder:
        for kind in FRAME_KINDS:
            (folder / kind).mkdir()
        if clip.info.spike is not None:
            (folder / "spike").mkdir()
        for index, frame in enumerate(clip.frames):
            for kind in FRAME_KINDS:
                image = clip.image_path(kind, index)
                shutil.copyfile(image, folder / kind / f"{frame.name}{image.suffix.lower()}")
            if clip.info.spike is not None:
                spikes = read_spikes(clip, index, index + 1)[0]
                write_dat(folder / "spike" / f"{frame.name}.dat", spikes)
        write_changes(folder / SEQUENCE_FILE, converted_info(clip), usual)
