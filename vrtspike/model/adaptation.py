"""Fit weights of a VRT to one with more input channels or another attention window.

In: a tensor of a file. Out: the tensor for the model and what was done to it, in words, or None
where that is not well defined.

- Input channels: in each of the 9 groups of `conv_first`'s input (the frame, four samples of each
  of its two neighbours) channel c stays c, and the channels behind RGB start at zero.
- Window: a relative position bias table has one row for each offset between two tokens of a window,
  `(2 t - 1) (2 h - 1) (2 w - 1)` rows, and a column for each head. It is resized as in Swin (Liu et
  al., 2021): bicubic over the offsets in space, here also linear over those in time. Not defined
  where heads differ, nor where an axis goes from one token to several or back: one offset says
  nothing about others. A table does not tell its shape, so windows of files are taken to be square.
"""

from __future__ import annotations

from math import isqrt

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vrtspike.model.windows import Window, relative_position_rows

INPUT_GROUPS = 9
RGB = 3


def with_more_inputs(weight: Tensor, inputs: int) -> tuple[Tensor, str] | None:
    """Return an RGB `conv_first` weight `(c, 27, 1, 3, 3)` with `inputs` channels instead of 27."""
    channels, rest = divmod(inputs, INPUT_GROUPS)
    if weight.ndim != 5 or weight.shape[1] != INPUT_GROUPS * RGB or rest or channels < RGB:
        return None
    groups = rearrange(weight, "o (g c) t h w -> o g c t h w", g=INPUT_GROUPS)
    groups = F.pad(groups, (0, 0, 0, 0, 0, 0, 0, channels - RGB))
    wider = rearrange(groups, "o g c t h w -> o (g c) t h w")
    return wider, f"input channels {RGB} -> {channels}, the new ones zero"


def for_window(
    table: Float[Tensor, "rows m"], rows_in_space: int, window: Window
) -> tuple[Tensor, str] | None:
    """Return a bias table resized for another window `(t, h, w)`.

    `rows_in_space`: how many of the table's rows share one offset in time, at least 1.
    """
    frames, side = len(table) // rows_in_space, isqrt(rows_in_space)
    old: Window = ((frames + 1) // 2, (side + 1) // 2, (side + 1) // 2)
    one_to_several = any((a == 1) != (b == 1) for a, b in zip(old, window, strict=True))
    if relative_position_rows(old) != len(table) or one_to_several:
        return None
    t, h, w = (2 * size - 1 for size in window)
    offsets = rearrange(table.float(), "(t h w) m -> t m h w", t=frames, h=side)
    offsets = F.interpolate(offsets, (h, w), mode="bicubic")
    offsets = rearrange(offsets, "t m h w -> m (h w) t")
    offsets = F.interpolate(offsets, t, mode="linear")
    resized = rearrange(offsets, "m hw t -> (t hw) m")
    return resized, f"bias tables resized from window {old} to {window}"
