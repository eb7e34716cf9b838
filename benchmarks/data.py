"""What the data's way to the model costs here: voxelization, a sample by stages, the pipeline.

    python benchmarks/data.py

Everything is measured on a clip that is made for it. Stages are in CPU seconds of one sample, from
prepared shards and straight from PNG and `.dat`; both ways make the same sample, which is checked.
The pipeline is the real one, on shards, in a process of its own that starts its own Ray, all of it
bound to some cores. Its memory is the proportional set size of that process and of Ray's workers
together, looked at every second.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from figures import Row, cpu_seconds, show
from moving_photograph import SPLIT, THRESHOLD, copy_clip, write_clip
from vrtspike.datasets.clip import FRAME_KINDS
from vrtspike.datasets.index import open_dataset
from vrtspike.runtime.ray_session import connect
from vrtspike.samples.order import Draw, StepLayout
from vrtspike.samples.sample import SampleReader, augmented_frames, augmented_voxels, stack_samples
from vrtspike.samples.shards import read_manifest, read_sample
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.voxels import voxelize_stream
from vrtspike.training.step import to_device
from vrtspike.video.image_file import open_image

FULL = {"height": 720, "width": 1280, "frames": 6, "steps": 88}
SMALL = {"height": 64, "width": 64, "frames": 2, "steps": 16}
"""Sizes of the clips of which there are many."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the data's way to the model costs.")
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="the pipeline's")
    parser.add_argument("--clips", type=int, nargs="*", default=[100, 1000], help="for its memory")
    parser.add_argument("--batches", type=int, default=128, help="timed micro-batches")
    parser.add_argument("--tiny", action="store_true", help="only try whether it works")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    sizes, crop, bins = (SMALL, 32, 8) if given.tiny else (FULL, 192, 32)
    with tempfile.TemporaryDirectory(prefix="vrtspike-bench-") as folder:
        root = Path(folder)
        sources = {root / "few": (2, sizes)}
        sources |= {root / f"many-{count}": (count, SMALL) for count in given.clips}
        for source, (count, each) in sources.items():
            copy_clip(write_clip(source, **each, spike_scale=2), count)
        in_own_process(prepare_all, list(sources))
        few, *many = sources
        reader = reader_of(few, crop, bins)
        tables = {
            "a whole stream of packed spikes": voxelization(few, bins),
            "CPU ms of a sample": stages(few, reader),
        }
        runs = [deliver(reader, cores, given.batches) for cores in given.cores]
        for source in many if runs else []:
            runs.append(deliver(reader_of(source, 32, 8), max(given.cores), 8 * given.batches))
    show({**tables, **({"the pipeline, from shards": runs} if runs else {})}, given.json)


def prepare_all(sources: list[Path]) -> None:
    """Prepare datasets, a shard a clip, each into a folder beside it."""
    from vrtspike.samples.prepare import prepare

    options: Any = {"tile": None, "shard_samples": 1, "splits": (SPLIT,)}
    with connect():
        for source in sources:
            frames = len(open_dataset(source).clip(SPLIT, "00000").frames)
            prepare(source, shards_of(source), frames=frames, stride=frames, **options)


def shards_of(source: Path) -> Path:
    """Return where the shards of a dataset go."""
    return source.with_name(f"{source.name}-shards")


def reader_of(source: Path, crop: int, bins: int) -> SampleReader:
    """Return what reads training samples of a dataset's shards."""
    shards = str(shards_of(source))
    return SampleReader(
        shards=shards,
        split=SPLIT,
        fingerprint=read_manifest(shards).fingerprint,
        crop=crop,
        augment=True,
        spikes=SpikeRepresentation(bins),
        seed=0,
    )


def in_own_process(work: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a new process, which may start Ray."""
    os.environ.pop("RAY_ADDRESS", None)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def voxelization(source: Path, bins: int) -> list[Row]:
    """Time ways through a stream; all that count give the same counts."""
    clip = open_dataset(source).clip(SPLIT, "00000")
    stream = clip.stream(clip.frames[0].spikes[0].file)
    packed = np.array(stream.packed)  # read once: no way waits for the disk
    ways: dict[str, Callable[[], Any]] = {
        "voxelize_stream": lambda: voxelize_stream(stream, bins),
        "np.add.at, each step": lambda: _add_at(stream, bins),
        "read the packed bytes": lambda: np.bitwise_xor.reduce(packed, axis=None),
        "np.unpackbits": lambda: np.unpackbits(packed),
    }
    assert np.array_equal(ways["voxelize_stream"](), ways["np.add.at, each step"]())
    seconds = {name: cpu_seconds(way) for name, way in ways.items()}
    bits = len(stream) * stream.height * stream.width
    return [
        {
            "way": name,
            "ms": 1e3 * took,
            "Gbit/s": bits / took / 1e9,
            "over voxelize_stream": took / seconds["voxelize_stream"],
        }
        for name, took in seconds.items()
    ]


def _add_at(stream: SpikeStream, bins: int) -> NDArray[np.int64]:
    """Count spikes straight from the definition: add each step to its bin."""
    counts = np.zeros((bins, stream.height, stream.width), np.int64)
    np.add.at(counts, np.arange(len(stream)) * bins // len(stream), stream[:])
    return counts


def stages(source: Path, reader: SampleReader) -> list[Row]:
    """Time what makes a training sample, stage by stage, both ways."""
    manifest, draw = read_manifest(reader.shards), Draw(0, 0)
    split, scale = manifest.splits[SPLIT], manifest.info.spike_scale or 1
    clip = open_dataset(source).clip(SPLIT, split.samples[0].id.split("/")[0])
    sample = read_sample(reader.shards, split, 0)
    drawn = reader.augmentation(draw)
    rows, columns = drawn.on_grid(scale)
    files = [clip.image_path(kind, i) for kind in FRAME_KINDS for i in range(len(clip.frames))]

    contents = [file.read_bytes() for file in files]

    def voxels(bits: NDArray[np.bool_]) -> NDArray[np.float16]:
        assert reader.spikes is not None
        return augmented_voxels(reader.spikes, bits, split.timeline(0), THRESHOLD, drawn)

    def cropped() -> NDArray[np.bool_]:
        size = rows.stop - rows.start, columns.stop - columns.start
        pieces = [frame.spikes[0] for frame in clip.frames]
        streams = [
            clip.stream(piece.file).crop(rows.start, columns.start, *size) for piece in pieces
        ]
        return np.stack([s[p.start : p.stop] for s, p in zip(streams, pieces, strict=True)])

    seen = voxels(sample.spike_bits(rows, columns))

    def augment() -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"voxels": seen}
        for kind in FRAME_KINDS:
            arrays[kind] = augmented_frames(getattr(sample, kind), drawn)
        return stack_samples([arrays])

    made, expected = augment(), reader.training([draw])
    assert all(np.array_equal(made[name], array) for name, array in expected.items())
    assert np.array_equal(voxels(cropped()), seen), "a `.dat` gives what shards give"
    ways: dict[str, dict[str, Callable[[], Any]]] = {
        "shards": {
            "read": lambda: read_sample(reader.shards, split, 0),
            "voxelize": lambda: voxels(sample.spike_bits(rows, columns)),
        },
        "folder": {
            "read": lambda: [file.read_bytes() for file in files],
            "decode": lambda: [_decode(content) for content in contents],
            "voxelize": lambda: voxels(cropped()),
        },
    }
    both = {"augment": augment, "transfer": lambda: to_device(made, torch.device("cpu"))}
    shared_ms = {stage: 1e3 * cpu_seconds(work) for stage, work in both.items()}
    table: list[Row] = []
    for way, own in ways.items():
        ms = {stage: 1e3 * cpu_seconds(work) for stage, work in own.items()} | shared_ms
        table += [{"from": way, "stage": stage, "CPU ms": took} for stage, took in ms.items()]
        table.append({"from": way, "stage": "all", "CPU ms": sum(ms.values())})
    return table


def _decode(content: bytes) -> NDArray[np.uint8]:
    with open_image(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def deliver(reader: SampleReader, cores: int, batches: int) -> Row:
    """Return what the pipeline delivers on some cores."""
    row: Row = in_own_process(_deliver, reader, cores, batches)
    return row


def _deliver(reader: SampleReader, cores: int, batches: int) -> Row:
    from vrtspike.samples.stream import MicroBatches, Stream

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    warm_up, peak, looked, size = max(8, batches // 4), 0, 0.0, 0
    clips = len(read_manifest(reader.shards).splits[SPLIT].samples)
    stream = Stream(reader, clips, StepLayout(1, 1, 1), 0)
    with connect():
        for number, arrays in enumerate(MicroBatches(stream, 0, warm_up + batches, cpus=cores), 1):
            if time.perf_counter() - looked > 1 or number == warm_up + batches:
                peak, looked = max(peak, _memory()), time.perf_counter()
            if number == warm_up:
                start, ours, theirs = time.perf_counter(), time.process_time(), _workers_s()
            size = sum(array.nbytes for array in arrays.values())
        took, ours = time.perf_counter() - start, time.process_time() - ours
        theirs = _workers_s() - theirs
    return {
        "cores": cores,
        "clips": clips,
        "samples/s": batches / took,
        "MB/s": batches * size / took / 1e6,
        "CPU ms: tasks": 1e3 * theirs / batches,
        "consumer": 1e3 * ours / batches,
        "peak MB": peak / 1e6,
    }


def _workers() -> list[psutil.Process]:
    """Return Ray's workers."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "".join(child.cmdline()).startswith("ray::")]


def _memory() -> int:
    return sum(process.memory_full_info().pss for process in [psutil.Process(), *_workers()])


def _workers_s() -> float:
    """Return the CPU seconds of all workers so far."""
    return sum(sum(worker.cpu_times()[:2]) for worker in _workers())


if __name__ == "__main__":
    main()
