"""Training a model that restores sharp frames.

It trains on the prepared shards and minimises the weighted terms of `loss`. The PSNR of whole
frames chooses the best weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from torch import nn

from vrtspike.metrics.losses import LossTerms
from vrtspike.model import build_model
from vrtspike.samples.sample import SampleReader
from vrtspike.samples.shards import Manifest, read_manifest
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.training.step import Arrays, Loss, Unpacked, to_device
from vrtspike.training.task import Task
from vrtspike.training.validation import Picture, validate


class RestoreTask(Task):
    """Train the model of `model` on the samples of `data.shards`."""

    judged = "psnr"
    judged_as = "PSNR", "{:.2f} dB"
    lower_is_better = False
    shown = "blurred | restored | sharp"

    @cached_property
    def manifest(self) -> Manifest:
        """Return the manifest of the shards."""
        return read_manifest(self.config.data.shards)

    @cached_property
    def spikes(self) -> SpikeRepresentation | None:
        """Return how spikes are given to the model; None if the model uses no spikes."""
        return SpikeRepresentation.of(self.config.model, self.config.data.voxels)

    @property
    def guessed(self) -> bool:
        """Whether the model also returns its first guess of the sharp frames."""
        return self.config.model.guess is not None and self.config.model.trunk

    def build(self) -> nn.Module:
        return build_model(self.config.model)

    def loss(self, device: torch.device) -> Loss:
        """Build the weighted sum of loss terms."""
        weights = self.config.loss.model_dump()
        if not self.guessed:
            weights["guess"] = 0.0
        return LossTerms(**weights).to(device)

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the shards."""
        return self.manifest.fingerprint

    def samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        return len(self.manifest.splits[split].samples)

    def reader(self, split: str) -> SampleReader:
        """Return the reader of a split."""
        data = self.config.data
        return SampleReader(
            shards=str(data.shards),
            split=split,
            fingerprint=self.manifest.fingerprint,
            crop=data.crop,
            augment=data.augment,
            spikes=self.spikes,
            seed=self.config.run.seed,
            threshold_factors=data.threshold_factors,
            time_shift_steps=data.time_shift_steps,
            drop_spikes=data.drop_spikes,
            lose_spikes=data.lose_spikes,
            spike_noise=data.spike_noise,
            misregister=(
                data.misregister.shift,
                data.misregister.rotate,
                data.misregister.scale,
            ),
        )

    def name(self, split: str, index: int) -> str:
        """Return the id of a sample in the shards."""
        return self.manifest.splits[split].samples[index].id

    def unpack(self, arrays: Arrays, device: torch.device) -> Unpacked:
        """Return the inputs (blurred frames, voxels) and the sharp frames; see `to_device`."""
        blurred, sharp, voxels = to_device(arrays, device)
        return (blurred, voxels, *([True] if self.guessed else [])), sharp

    def validate(
        self,
        model: nn.Module,
        split: str,
        *,
        device: torch.device,
        autocast: AbstractContextManager[Any],
        alive: Callable[[], None] | None = None,
    ) -> tuple[Mapping[str, float], Picture | None]:
        """Restore whole frames; return the figures of `ValidationScore` and a picture."""
        score, picture = validate(
            model,
            self.reader(split),
            self.samples(split),
            device=device,
            autocast=autocast,
            guessed=self.guessed,
            alive=alive,
        )
        return {k: v for k, v in asdict(score).items() if v is not None}, picture
