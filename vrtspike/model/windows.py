"""The windows of a video: relative positions of their tokens, and masks at the borders.

A video `(b, t, h, w, c)` is shifted (rolled) and then cut into windows. The mask keeps apart tokens
that the shift brings together from opposite borders. Only windows that are last along a shifted
axis need a mask, so there are at most eight masks, for any number of windows. n is the number of
tokens in a window.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

Window = tuple[int, int, int]
MASKED = -100.0


def relative_position_rows(window: Window) -> int:
    """Return the number of rows of a bias table: one for each offset between two tokens."""
    t, h, w = window
    return (2 * t - 1) * (2 * h - 1) * (2 * w - 1)


@lru_cache(maxsize=64)
def relative_position_index(window: Window, table: Window, device: torch.device) -> Tensor:
    """Return the row of the bias table for each pair of tokens of `window`, `(n, n)`.

    The table was made for the window `table`, which may be larger than `window`.
    """
    axes = [torch.arange(size, device=device) for size in window]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    offset = position[:, :, None] - position[:, None, :]
    size_t, size_h, size_w = table
    row = (offset[0] + size_t - 1) * (2 * size_h - 1) + offset[1] + size_h - 1
    return row * (2 * size_w - 1) + offset[2] + size_w - 1


@lru_cache(maxsize=64)
def border_mask(
    window: Window, shift: Window, border: tuple[bool, ...], device: torch.device
) -> Tensor:
    """Return the additive mask `(n, n)` of a window that is last along the `border` axes.

    Tokens on different sides of the wrap of a shifted axis do not attend to each other.
    """
    regions = torch.zeros(window, device=device, dtype=torch.int64)
    for axis, (size, moved, is_last) in enumerate(zip(window, shift, border, strict=True)):
        if is_last and moved:
            wrapped = torch.arange(size, device=device) >= size - moved
            shape = [1, 1, 1]
            shape[axis] = size
            regions = regions * 2 + wrapped.view(shape)
    flat = regions.flatten()
    return torch.where(flat[:, None] == flat[None, :], 0.0, MASKED)


Borders = tuple[tuple[bool, ...], ...]


@lru_cache(maxsize=64)
def border_masks(window: Window, shift: Window, borders: Borders, device: torch.device) -> Tensor:
    """Return the masks `(kinds, 1, n, n)` of the given kinds of border."""
    masks = [border_mask(window, shift, border, device) for border in borders]
    return torch.stack(masks)[:, None]


@lru_cache(maxsize=64)
def border_kinds(
    shift: Window, counts: tuple[int, int, int, int], device: torch.device
) -> tuple[Borders, Tensor]:
    """Return the kinds of border that occur, and the kind of each window, `(b, nt, nh, nw)`.

    `counts` are b and the numbers of windows along t, h and w.
    """
    kinds: dict[tuple[bool, ...], int] = {}
    lasts = product(
        *(
            [moved > 0 and i == count - 1 for i in range(count)]
            for count, moved in zip(counts[1:], shift, strict=True)
        )
    )
    indices = [kinds.setdefault(last, len(kinds)) for last in lasts]
    return tuple(kinds), torch.tensor(indices * counts[0], device=device).view(counts)


@lru_cache(maxsize=16)
def sine_position(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return the sine position code `(height * width, channels)` of a window.

    The first half of the channels codes y, the second half x.
    """
    half = channels // 2
    frequency = 10000 ** (2 * (torch.arange(half, device=device) // 2) / half)
    codes = []
    for size in (height, width):
        position = torch.arange(1, size + 1, device=device, dtype=torch.float32)
        angle = (position * (2 * torch.pi / (size + 1e-6)))[:, None] / frequency
        codes.append(torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=-1).flatten(1))
    y, x = codes
    grid = torch.cat((y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)), dim=-1)
    return grid.flatten(0, 1)


class Grid(NamedTuple):
    """The window, its shift, and the number of heads."""

    window: Window
    shift: Window
    heads: int
    mutual: bool = False
    """Windows span one frame, and each frame of a pair is queried by the other."""

    def pairs(self) -> Grid:
        """Return the grid of the mutual attention that belongs to this self attention."""
        return Grid((1, *self.window[1:]), (0, *self.shift[1:]), self.heads, mutual=True)

    def sizes(self) -> dict[str, int]:
        """Return the sides of the window by their names in einops patterns."""
        return dict(zip(("wt", "wh", "ww"), self.window, strict=True))

    def tokens(self) -> int:
        """Return the number of tokens in a window."""
        return self.window[0] * self.window[1] * self.window[2]
