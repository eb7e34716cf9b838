"""What one rank trains and validates on: streams, readers, and the names of samples."""

from __future__ import annotations

from vrtspike.data.order import Share, micro_batch
from vrtspike.data.pipeline import MicroBatches, Stream
from vrtspike.data.samples import SampleReader
from vrtspike.data.shards import read_manifest
from vrtspike.settings import Config
from vrtspike.training.step import VoxelScale

NAMED = 8
"""Most samples that a message names."""


class Inputs:
    """The prepared shards, as a configuration wants them and as `ranks` share them."""

    def __init__(self, config: Config, rank: int, ranks: int) -> None:
        self._config, self._rank = config, rank
        self.manifest = read_manifest(config.data.shards)
        self.share = Share(config.train.batch, config.train.micro_batch, ranks)
        self.voxels: VoxelScale | None = None
        if config.model.fusion != "none":
            self.voxels = VoxelScale(self.manifest.info.camera.threshold, config.data.voxels)
        """How counts become voxels; None for a model without spikes."""

    def samples(self, split: str) -> int:
        """Return how many samples a split has."""
        return len(self.manifest.splits[split].samples)

    def micro_batches(self, done: int, cpus: float) -> MicroBatches:
        """Open this rank's stream after `done` steps; its tasks use so many CPUs."""
        train, split = self._config.train, self._config.data.train_split
        stream = Stream(self.reader(split), self.samples(split), self.share, self._rank)
        first, end = (steps * self.share.accumulation for steps in (done, train.steps))
        return MicroBatches(stream, first, end, cpus=cpus)

    def reader(self, split: str) -> SampleReader:
        """Return the reader of a split."""
        data, model = self._config.data, self._config.model
        return SampleReader(
            shards=str(data.shards),
            split=split,
            fingerprint=self.manifest.fingerprint,
            crop=data.crop,
            augment=data.augment,
            bins=None if model.fusion == "none" else model.spike.bins,
            seed=self._config.run.seed,
            threshold_factors=data.threshold_factors,
            time_shift_steps=data.time_shift_steps,
            drop_spikes=data.drop_spikes,
        )

    def names(self, step: int) -> str:
        """Name the samples of a step, those of all ranks."""
        batch, split = self._config.train.batch, self._config.data.train_split
        samples = self.manifest.splits[split].samples
        share = Share(batch, batch, 1)
        draws = micro_batch(self._config.run.seed, len(samples), share, step, 0)
        more = f" and {len(draws) - NAMED} more" if len(draws) > NAMED else ""
        return ", ".join(samples[draw.index].id for draw in draws[:NAMED]) + more
