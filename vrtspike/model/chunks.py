"""Chunks: attention on one piece of the picture after the other, to bound its memory.

Pixels, or windows of pixels, attend by themselves, so the result does not depend on how the
picture `(b, t, h, w, c)` is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Literal

import torch
from torch import Tensor

from vrtspike.model.recompute import recompute


@dataclass(frozen=True)
class Chunks:
    """How much of the picture is computed at once; by default all of it."""

    size: int | None = None
    """Side of a square, or number of rows, in pixels of the scale at hand."""
    shape: Literal["square", "rows"] = "square"
    """Squares, or bands over the whole width."""
    max_batch_tokens: int | None = None
    """Chunks shrink until batch * instants * pixels is no more than this."""
    unit: int = 1
    """Side of the windows that are not cut: chunks are multiples of it, and one at least."""

    def extent(self, batch_tokens: int, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of a chunk; `batch_tokens`: tokens of the batch a pixel."""
        rows, columns = height, width
        if self.size is not None:
            rows = min(rows, self._whole_units(self.size))
            columns = min(columns, self._whole_units(self.size)) if self._square() else columns
        if self.max_batch_tokens is not None:
            pixels = self.max_batch_tokens // batch_tokens
            widest = isqrt(pixels) if self._square() else pixels // min(self.unit, height)
            if rows * columns > pixels:
                columns = min(columns, self._whole_units(widest))
                rows = min(rows, self._whole_units(pixels // columns))
        return rows, columns

    def run(
        self, part: Callable[..., Tensor], *features: Tensor, checkpoint: bool = False
    ) -> Tensor:
        """Return `part(*features)` of features `(b, t, h, w, c)` of one height and width.

        If there are several chunks, or with `checkpoint`, the backward pass computes each of them
        again, so that the memory of one is enough in training too.
        """
        batch, _, height, width, _ = features[0].shape
        instants = max(x.shape[1] for x in features)
        rows, columns = self.extent(batch * instants, height, width)
        if (rows, columns) == (height, width):
            return recompute(part, *features, wanted=checkpoint)

        def band(*pieces: Tensor) -> Tensor:
            return _in_pieces(partial(recompute, part), pieces, columns, dim=3)

        return _in_pieces(band, features, rows, dim=2)

    def _square(self) -> bool:
        return self.shape == "square"

    def _whole_units(self, length: int) -> int:
        return max(self.unit, length // self.unit * self.unit)


def _in_pieces(
    part: Callable[..., Tensor], features: Sequence[Tensor], size: int, dim: int
) -> Tensor:
    """Cut the features along an axis, apply `part` to each piece, and join the results."""
    pieces = zip(*(torch.split(x, size, dim) for x in features), strict=True)
    return torch.cat([part(*piece) for piece in pieces], dim)
