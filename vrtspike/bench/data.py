"""Speed and memory of the data's way to the model on this machine, measured on generated data.

In: sizes and counts. Out: a `DataReport`: voxelization beside plain code and plain reading, what
each stage of a micro-batch costs from prepared shards and straight from PNG and `.dat`, what the
real pipeline delivers by the cores it has, and its memory by the number of clips. The data lie in a
temporary folder meanwhile.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from vrtspike.bench.data_pipeline import PipelineCase, Throughput, measure_pipeline
from vrtspike.bench.data_stages import SOURCES, Source, Stages, measure_stages
from vrtspike.bench.generated import (
    SPLIT,
    ClipArrays,
    Sizes,
    make_clip,
    sequence_name,
    write_folder,
    write_shards,
)
from vrtspike.bench.model import Machine, find_machine
from vrtspike.bench.voxelization import Way, measure_voxelization
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import ResourceError
from vrtspike.runtime.progress import counted
from vrtspike.samples.order import Draw, Share, micro_batch
from vrtspike.samples.sample import SampleReader
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.stream import SpikeStream

TINY = Sizes(height=64, width=64, frames=2, steps=16, crop=32, bins=8)
"""Sizes of the clips of which there are many."""


def usual_cores() -> tuple[int, ...]:
    """Return one core and two, as far as there are."""
    return tuple(range(1, 1 + min(2, len(os.sched_getaffinity(0)))))


@dataclass(frozen=True)
class DataPlan:
    """What to measure."""

    sizes: Sizes = field(default_factory=Sizes)
    clips: int = 2
    """Clips that are made, a sample each."""
    batch: int = 1
    """Samples of a micro-batch."""
    repeats: int = 7
    """Passes of the ways to voxelize, and of the stages over each clip."""
    sources: tuple[Source, ...] = SOURCES
    """Where the pipeline reads from."""
    cores: tuple[int, ...] = field(default_factory=usual_cores)
    """Cores that the pipeline is bound to; none: it is not measured."""
    batches: int = 128
    """Micro-batches of a measurement of the pipeline; a quarter of them where PNGs are decoded."""
    many: tuple[int, ...] = (100, 1000)
    """Numbers of clips for the pipeline's memory."""
    many_sizes: Sizes = TINY
    many_batches: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class DataReport:
    """What `vrtspike bench data` found."""

    machine: Machine
    plan: DataPlan
    voxelization: list[Way]
    stages: list[Stages]
    throughput: list[Throughput]
    memory: list[Throughput]
    """The pipeline at several numbers of clips, on the most cores."""

    def speedup(self, case: Throughput) -> float:
        """Return a case's samples a second over those of its source on the fewest cores."""
        rates = {c.cores: c.samples_s for c in self.throughput if c.source == case.source}
        return case.samples_s / rates[min(rates)]

    def growth(self, case: Throughput) -> float:
        """Return a case's peak memory over that with the fewest clips."""
        return case.peak_bytes / min(self.memory, key=lambda c: c.clips).peak_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the ratios that tables show."""
        facts = asdict(self)
        for name, ratio in (("throughput", self.speedup), ("memory", self.growth)):
            key = ratio.__name__
            for entry, case in zip(facts[name], getattr(self, name), strict=True):
                entry[key] = ratio(case)
        return facts


def run_data_plan(plan: DataPlan, update: Callable[[int, int], None]) -> DataReport:
    """Measure all that is planned; `update` is told how many steps are done, and of how many."""
    machine = find_machine("cpu", len(os.sched_getaffinity(0)))
    _check_cores(plan, machine)
    cases = list(product(plan.sources, plan.cores))
    many = plan.many if plan.cores else ()
    total = 3 + len(cases) + len(many)
    step = counted(update, total)
    with _generated(plan) as data:
        step()
        ways = measure_voxelization(data.stream(), plan.sizes.bins, plan.repeats)
        step()
        stages = measure_stages(str(data.folder), data.reader, data.draws())
        step()
        throughput = []
        for source, cores in cases:
            throughput.append(measure_pipeline(data.case(source, cores)))
            step()
    memory = []
    for clips in many:
        with _many(plan, clips) as case:
            memory.append(measure_pipeline(case))
        step()
    return DataReport(machine, plan, ways, stages, throughput, memory)


def _check_cores(plan: DataPlan, machine: Machine) -> None:
    """Refuse more cores than there are."""
    if max(plan.cores, default=0) > machine.threads:
        raise ResourceError(
            "the pipeline cannot be measured on so many cores",
            got=max(plan.cores),
            expected=f"at most {machine.threads}",
        )


@dataclass(frozen=True)
class _Data:
    """The generated data, and what reads them."""

    plan: DataPlan
    folder: Path
    reader: SampleReader

    def stream(self) -> SpikeStream:
        """Map the spikes of the first frame."""
        clip = open_dataset(self.folder).clip(SPLIT, sequence_name(0))
        return clip.stream(clip.frames[0].spikes[0].file)

    def draws(self) -> list[tuple[Draw, ...]]:
        """Return the draws of some micro-batches, which go through all clips `repeats` times."""
        plan = self.plan
        share = Share(plan.batch, plan.batch, 1)
        count = -(-plan.repeats * plan.clips // plan.batch)
        return [micro_batch(plan.seed, plan.clips, share, i, 0) for i in range(count)]

    def case(self, source: Source, cores: int) -> PipelineCase:
        """Return a measurement of the pipeline on these data."""
        plan = self.plan
        batches = plan.batches if source == "shards" else -(-plan.batches // 4)
        return PipelineCase(
            source=source,
            cores=cores,
            clips=plan.clips,
            reader=self.reader,
            folder=str(self.folder),
            batch=plan.batch,
            batches=batches,
            warm_up=max(8, batches // 4),
        )


@contextmanager
def _generated(plan: DataPlan) -> Iterator[_Data]:
    """Make the clips, as a folder and as shards, and delete them afterwards."""
    with tempfile.TemporaryDirectory(prefix="vrtspike-bench-") as name:
        root = Path(name)
        clips = [make_clip(plan.sizes, plan.seed + number) for number in range(plan.clips)]
        write_folder(root / "folder", plan.sizes, clips)
        reader = _write_shards(root / "shards", plan.sizes, clips, plan.clips, plan.seed)
        del clips  # large, and no part of what is measured
        yield _Data(plan, root / "folder", reader)


@contextmanager
def _many(plan: DataPlan, count: int) -> Iterator[PipelineCase]:
    """Write shards of many small clips, and give the case that reads them."""
    sizes, cores = plan.many_sizes, max(plan.cores)
    with tempfile.TemporaryDirectory(prefix="vrtspike-bench-") as name:
        clips = [make_clip(sizes, plan.seed)]
        reader = _write_shards(Path(name), sizes, clips, count, plan.seed)
        batches = replace(plan, batches=plan.many_batches)
        case = _Data(batches, Path(name), reader).case("shards", cores)
        yield replace(case, clips=count)


def _write_shards(
    root: Path, sizes: Sizes, clips: list[ClipArrays], count: int, seed: int
) -> SampleReader:
    """Write shards, and return what reads training samples of them."""
    manifest = write_shards(root, sizes, clips, count)
    return SampleReader(
        shards=str(root),
        split=SPLIT,
        fingerprint=manifest.fingerprint,
        crop=sizes.crop,
        augment=True,
        spikes=SpikeRepresentation(sizes.bins),
        seed=seed,
    )
