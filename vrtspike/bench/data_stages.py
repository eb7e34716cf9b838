"""What each stage of making a training micro-batch costs, from shards and from PNG and `.dat`.

    read       the sample's bytes: a row group of a shard; the files of the images
    decode     PNG files to frames, which shards have behind them
    voxelize   unpack the spikes of the crop (a `.dat` is mapped: read them, too) and bin them
    augment    crop the frames, turn all, and put the samples together
    transfer   to tensors and floats, as the training step does

Both ways make the same micro-batch from the same draw, equal to `SampleReader.training`, which is
checked. Costs are CPU seconds of this process: what a machine of many workers has to pay.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vrtspike.bench.generated import SPLIT, THRESHOLD, sequence_name
from vrtspike.datasets.clip import FRAME_KINDS, Clip, FrameKind
from vrtspike.datasets.index import open_dataset
from vrtspike.samples.augment import Augmentation
from vrtspike.samples.order import Draw
from vrtspike.samples.sample import SampleReader, augmented_frames, augmented_voxels, stack_samples
from vrtspike.samples.shards import read_manifest, read_sample
from vrtspike.spikes.timeline import Timeline
from vrtspike.training.step import to_device
from vrtspike.video.image_file import open_image

Source = Literal["shards", "folder"]
SOURCES: tuple[Source, ...] = ("shards", "folder")
Arrays = dict[str, NDArray[Any]]
Stage = Literal["read", "decode", "voxelize", "augment", "transfer"]


class StageClock:
    """CPU seconds of each stage, summed up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: Stage) -> Iterator[None]:
        """Count what the body takes for a stage."""
        start = time.process_time()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - start


class ShardSource:
    """Micro-batches from prepared shards, as `SampleReader.training` makes them, stage by stage."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader, manifest = reader, read_manifest(reader.shards)
        self._split, self._info = manifest.splits[SPLIT], manifest.info

    def make(self, draws: Sequence[Draw], clock: StageClock) -> Arrays:
        """Make the micro-batch of some draws."""
        samples = []
        for draw in draws:
            with clock.of("read"):
                sample = read_sample(self._reader.shards, self._split, draw.index)
            timeline = self._split.timeline(draw.index)
            with clock.of("augment"):
                drawn = self._reader.augmentation(draw)
                blurred = augmented_frames(sample.blurred, drawn)
                sharp = augmented_frames(sample.sharp, drawn)
            with clock.of("voxelize"):
                window = drawn.on_grid(self._info.spike_scale or 1)
                voxels = _voxels(self._reader, sample.spike_bits(*window), timeline, drawn)
            arrays: Arrays = {"blurred": blurred, "sharp": sharp, "voxels": voxels}
            samples.append(arrays)
        with clock.of("augment"):
            return stack_samples(samples)


class FolderSource:
    """The same micro-batches straight from images and `.dat` files: clip i is sample i."""

    def __init__(self, folder: str, reader: SampleReader) -> None:
        self._dataset, self._reader = open_dataset(folder), reader

    def make(self, draws: Sequence[Draw], clock: StageClock) -> Arrays:
        """Make the micro-batch of some draws."""
        samples = []
        for draw in draws:
            clip = self._dataset.clip(SPLIT, sequence_name(draw.index))
            with clock.of("read"):
                files: dict[FrameKind, list[bytes]] = {
                    kind: [clip.image_path(kind, i).read_bytes() for i in range(len(clip.frames))]
                    for kind in FRAME_KINDS
                }
            with clock.of("decode"):
                frames = {kind: np.stack([_decode(f) for f in files[kind]]) for kind in files}
            with clock.of("augment"):
                drawn = self._reader.augmentation(draw)
                arrays: Arrays = {kind: augmented_frames(frames[kind], drawn) for kind in frames}
            with clock.of("voxelize"):
                bits = _cropped_spikes(clip, *drawn.on_grid(clip.info.spike_scale or 1))
                timeline = clip.info.timeline
                voxels = _voxels(self._reader, bits, timeline, drawn)
            samples.append({**arrays, "voxels": voxels})
        with clock.of("augment"):
            return stack_samples(samples)


@dataclass(frozen=True)
class Stages:
    """CPU seconds that a sample of a source costs, by stage."""

    source: Source
    seconds: Mapping[str, float]
    shares: Mapping[str, float]
    """The part of the total that each stage is."""
    total_s: float
    """CPU seconds from the first byte to tensors, measured around all stages."""
    over_decode: float
    """That, without the transfer, over the seconds to decode the sample's images."""


def make_source(source: Source, folder: str, reader: SampleReader) -> ShardSource | FolderSource:
    """Return what makes the micro-batches of a source."""
    return ShardSource(reader) if source == "shards" else FolderSource(folder, reader)


def measure_stages(
    folder: str, reader: SampleReader, draws: Sequence[Sequence[Draw]]
) -> list[Stages]:
    """Time both sources in turns over some micro-batches; the first pass is not timed."""
    makers = {source: make_source(source, folder, reader) for source in SOURCES}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another take CPU seconds, too
    try:
        clocks, totals = _time_in_turns(makers, reader, draws)
    finally:
        torch.set_num_threads(threads)
    count = sum(len(micro_batch) for micro_batch in draws)
    decode_s = clocks["folder"].seconds["decode"] / count
    return [_stages(source, clocks[source], totals[source], count, decode_s) for source in SOURCES]


def _time_in_turns(
    makers: Mapping[Source, ShardSource | FolderSource],
    reader: SampleReader,
    draws: Sequence[Sequence[Draw]],
) -> tuple[dict[Source, StageClock], dict[Source, float]]:
    """Check that all sources make the same, then time them; return seconds by stage and in all."""
    for micro_batch in draws:
        expected = reader.training(micro_batch)
        for maker in makers.values():
            _check_equal(maker.make(micro_batch, StageClock()), expected)
    clocks = {source: StageClock() for source in SOURCES}
    totals = dict.fromkeys(SOURCES, 0.0)
    for micro_batch in draws:
        for source, maker in makers.items():
            start = time.process_time()
            arrays = maker.make(micro_batch, clocks[source])
            with clocks[source].of("transfer"):
                to_device(arrays, torch.device("cpu"))
            totals[source] += time.process_time() - start
    return clocks, totals


def _stages(source: Source, clock: StageClock, total: float, count: int, decode_s: float) -> Stages:
    """Put together what one sample costs."""
    seconds = {stage: took / count for stage, took in clock.seconds.items()}
    whole = sum(seconds.values())
    return Stages(
        source,
        seconds,
        {stage: took / whole for stage, took in seconds.items()},
        total / count,
        (whole - seconds["transfer"]) / decode_s,
    )


def _check_equal(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


def _voxels(
    reader: SampleReader, bits: NDArray[np.bool_], timeline: Timeline, drawn: Augmentation
) -> NDArray[np.float16]:
    assert reader.spikes is not None
    return augmented_voxels(reader.spikes, bits, timeline, THRESHOLD, drawn)


def _decode(content: bytes) -> NDArray[np.uint8]:
    with open_image(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _cropped_spikes(clip: Clip, rows: slice, columns: slice) -> NDArray[np.bool_]:
    """Read the spikes of a crop (t, s, m, m) without unpacking the rest."""
    size = rows.stop - rows.start, columns.stop - columns.start
    frames = []
    for frame in clip.frames:
        (piece,) = frame.spikes
        stream = clip.stream(piece.file).crop(rows.start, columns.start, *size)
        frames.append(stream[piece.start : piece.stop])
    return np.stack(frames)
