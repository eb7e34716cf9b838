"""The interface from which the stream of micro-batches and validation read samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from numpy.typing import NDArray

from vrtspike.samples.order import Draw


class Reader(Protocol):
    """The samples of a split; the object is small, so that it can be sent to tasks."""

    @property
    def seed(self) -> int:
        """Return the seed of the order of samples."""
        ...

    def training(self, draws: Iterable[Draw]) -> dict[str, NDArray[Any]]:
        """Return one micro-batch, arrays with a leading batch axis by name."""
        ...

    def whole(self, index: int) -> dict[str, NDArray[Any]]:
        """Return one sample for validation, as a batch of one."""
        ...
