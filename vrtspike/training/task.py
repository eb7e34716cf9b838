"""What a run trains: the network, its samples, what is minimised, and how it is judged.

`Task` is all that differs between training a model that restores and training the flow network
alone; the loop, the workers, checkpoints and the metrics log are the same for both. Nothing is read
before it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import nn

from vrtspike.config.config import Config
from vrtspike.samples.reader import Reader
from vrtspike.training.step import Arrays, Loss, Unpacked
from vrtspike.training.validation import Picture


class Task(ABC):
    """What a configuration trains."""

    judged: ClassVar[str]
    """The figure of validation that tells the best weights."""
    judged_as: ClassVar[tuple[str, str]]
    """Its name and format on the progress line."""
    lower_is_better: ClassVar[bool]
    shown: ClassVar[str]
    """What pictures of validation show."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network."""

    @abstractmethod
    def loss(self, device: torch.device) -> Loss:
        """Build what is minimised."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return what tells the samples from others."""

    @abstractmethod
    def samples(self, split: str) -> int:
        """Return how many samples a split has."""

    @abstractmethod
    def reader(self, split: str) -> Reader:
        """Return the reader of a split."""

    @abstractmethod
    def name(self, split: str, index: int) -> str:
        """Name a sample."""

    @abstractmethod
    def unpack(self, arrays: Arrays, device: torch.device) -> Unpacked:
        """Turn samples into what the network takes and what it is to give."""

    @abstractmethod
    def validate(
        self,
        model: nn.Module,
        split: str,
        *,
        device: torch.device,
        autocast: AbstractContextManager[Any],
        alive: Callable[[], None] | None = None,
    ) -> tuple[Mapping[str, float], Picture | None]:
        """Return figures over a split, `judged` among them; on rank 0 a picture, too."""

    def improves(self, value: float, best: float) -> bool:
        """Tell whether weights are better than the best ones so far."""
        return value < best if self.lower_is_better else value > best
