"""What a run trains: the network, its samples, its loss and its validation.

`Task` contains everything that differs between training a restoring model and training the flow
network alone. The training loop, workers, checkpoints and metrics log are the same for both. A task
reads files only when they are needed.
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
    """The validation figure that chooses the best weights."""
    judged_as: ClassVar[tuple[str, str]]
    """Name and format of `judged` on the progress line."""
    lower_is_better: ClassVar[bool]
    """Whether smaller values of `judged` are better."""
    shown: ClassVar[str]
    """Title of the validation picture."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network."""

    @abstractmethod
    def loss(self, device: torch.device) -> Loss:
        """Build the loss on a device."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the training data; it differs between different data."""

    @abstractmethod
    def samples(self, split: str) -> int:
        """Return the number of samples of a split."""

    @abstractmethod
    def reader(self, split: str) -> Reader:
        """Return the reader of a split."""

    @abstractmethod
    def name(self, split: str, index: int) -> str:
        """Return the name of a sample."""

    @abstractmethod
    def unpack(self, arrays: Arrays, device: torch.device) -> Unpacked:
        """Copy a batch to a device; return the network's arguments and the target of the loss."""

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
        """Return the figures of a split, including `judged`, and on rank 0 a picture.

        All ranks call it. `autocast` is the context of the forward pass; `alive` is called after
        each clip.
        """

    def improves(self, value: float, best: float) -> bool:
        """Return whether a value of `judged` is better than the best one so far."""
        return value < best if self.lower_is_better else value > best
