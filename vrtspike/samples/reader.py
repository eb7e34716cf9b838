"""What the stream of micro-batches, and validation, read samples from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from numpy.typing import NDArray

from vrtspike.samples.order import Draw


class Reader(Protocol):
    """A split of samples; small enough to send to a task."""

    @property
    def seed(self) -> int:
        """Return the seed of the order in which samples are drawn."""
        ...

    def training(self, draws: Iterable[Draw]) -> dict[str, NDArray[Any]]:
        """Make one micro-batch."""
        ...

    def whole(self, index: int) -> dict[str, NDArray[Any]]:
        """Make one sample to validate on, as a batch of one."""
        ...
