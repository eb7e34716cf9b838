"""Averaged weights: average <- decay * average + (1 - decay) * weights, after every step.

Each rank averages its own slices, so the average costs as much memory as one rank's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vrtspike.checkpoints.local_part import LocalParameters


class AveragedWeights:
    """The moving average of this rank's slices of the parameters, by name."""

    def __init__(self, parameters: LocalParameters, decay: float) -> None:
        self.decay = decay
        self.parts = {name: part.detach().clone() for name, part in parameters.parts.items()}
        self._parameters = parameters

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights."""
        weights = self._parameters.tensors()
        torch._foreach_lerp_(list(self.parts.values()), weights, 1.0 - self.decay)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Inside the block, replace the model's weights by the averages; restore them afterwards.

        The model must be sharded (not gathered) on entry and when the block ends.
        """
        kept = [part.detach().clone() for part in self._parameters.parts.values()]
        self._parameters.copy_from(list(self.parts.values()))
        try:
            yield
        finally:
            self._parameters.copy_from(kept)
