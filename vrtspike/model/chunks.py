"""Chunks: compute attention on one part of the picture at a time, to limit its memory.

Each pixel, or each window of pixels, attends independently of the others. So the result does not
depend on how the picture `(b, t, h, w, c)` is cut.
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
    """The part of the picture that is computed at once; by default all of it."""

    size: int | None = None
    """Side of a square, or number of rows, in pixels of the feature that is cut."""
    shape: Literal["square", "rows"] = "square"
    """Squares, or bands of rows over the whole width."""
    max_batch_tokens: int | None = None
    """Chunks shrink until batch * instants * pixels is at most this."""
    unit: int = 1
    """Side of an attention window in pixels: the sides of chunks are multiples of it."""

    def extent(self, batch_tokens: int, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of a chunk of a picture of `height` x `width` pixels.

        `batch_tokens` is the number of tokens at each pixel, batch * instants.
        """
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
        """Return `part(*features)`, computed chunk by chunk.

        The features are `(b, t, h, w, c)`; all have the same h and w. If there are several chunks,
        or with `checkpoint`, the backward pass recomputes each chunk, so that training needs the
        memory of only one.
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
