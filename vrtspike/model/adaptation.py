"""Convert weights of a VRT for a VRT with more input channels or another attention window.

In: a tensor from a weights file. Out: the tensor for the model and a description of the change, or
None if the conversion is not well defined.

- Input channels: `conv_first` takes 9 groups of channels (the frame, and four samples of each of
  its two neighbours). In each group the RGB weights stay, and the added channels start at zero.
- Window: a relative position bias table has one row for each offset between two tokens of a window,
  `(2 t - 1) (2 h - 1) (2 w - 1)` rows, and one column for each head. The table is resized as in
  Swin (Liu et al., 2021): bicubic over the offsets in space, and here also linear over the offsets
  in time. This is not defined if the numbers of heads differ, or if an axis changes between one
  token and several, because a single offset says nothing about other offsets. The shape of a table
  does not give its window, so we assume that windows in files are square in space.
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
    """Widen an RGB `conv_first` weight `(c, 27, 1, 3, 3)` to `inputs` input channels.

    Return the weight and a description of the change, or None if `inputs` does not fit.
    """
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
    """Resize a bias table for another window `(t, h, w)`.

    `rows_in_space` is the number of the table's rows that share one offset in time, at least 1.
    Return the table and a description of the change, or None if it is not well defined.
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
