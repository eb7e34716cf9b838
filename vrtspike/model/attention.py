"""Window attention over video (self and mutual attention), and the transformer block around it.

Features are channels-last, `(b, t, h, w, c)`. In self attention, a window of (wt, wh, ww) tokens
attends to itself, with a relative position bias. In mutual attention, a window of two frames is
split, and each frame queries the other. Every second block shifts its windows by half a window. A
mask keeps apart tokens that the shift brings together from opposite borders (Liu et al., Video
Swin, 2021; Liang et al., VRT, 2022, section 3.2). As published, mutual attention masks only in
space.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.mlp import GatedMLP
from vrtspike.model.recompute import is_small, recompute
from vrtspike.model.window_attention import attend_windows
from vrtspike.model.windows import (
    Grid,
    Window,
    relative_position_index,
    relative_position_rows,
    sine_position,
)


class WindowAttention(nn.Module):
    """Self attention inside windows and, with `mutual`, mutual attention between two frames."""

    def __init__(self, channels: int, window: Window, heads: int, *, mutual: bool) -> None:
        super().__init__()
        self.heads, self.window, self.mutual = heads, window, mutual
        rows = relative_position_rows(window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv_self = nn.Linear(channels, 3 * channels)
        if mutual:
            self.qkv_mut = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(2 * channels if mutual else channels, channels)

    def pack(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w p"]:
        """Return the queries, keys and values along the last axis.

        p = 3 c; with mutual attention p = 6 c: those of self attention, then of mutual attention.
        """
        if not self.mutual:
            return self.qkv_self(x)  # type: ignore[no-any-return]
        weight = torch.cat((self.qkv_self.weight, self.qkv_mut.weight))
        return F.linear(x, weight, torch.cat((self.qkv_self.bias, self.qkv_mut.bias)))

    def forward(
        self, qkv: Float[Tensor, "b t h w p"], window: Window, shift: Window
    ) -> Float[Tensor, "b t h w c"]:
        """Attend inside each window of a video that is already padded and shifted.

        `window` and `shift` are the sizes in use, which are smaller than `self.window` if the
        video is smaller than a window.
        """
        index = relative_position_index(window, self.window, qkv.device)
        bias = rearrange(self.relative_position_bias_table[index], "i j m -> m i j")
        code = None
        if self.mutual:
            channels = self.qkv_mut.in_features
            position = sine_position(window[1], window[2], channels, qkv.device)
            code = F.linear(position.to(self.qkv_mut.weight.dtype), self.qkv_mut.weight)
        out: Tensor = self.proj(attend_windows(qkv, bias, code, Grid(window, shift, self.heads)))
        return out


class AttentionBlock(nn.Module):
    """Window attention, then a gated MLP; each with a LayerNorm before it and a skip connection.

    In training, each branch is dropped at the rate `drop_path`.
    """

    def __init__(
        self,
        channels: int,
        window: Window,
        shift: Window,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
        *,
        mutual: bool,
        checkpoint_attention: bool = False,
        checkpoint_mlp: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.shift, self.drop_path = window, shift, drop_path
        self.checkpoint_attention = checkpoint_attention
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads, mutual=mutual)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedMLP(channels, int(channels * mlp_ratio), checkpoint=checkpoint_mlp)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Return x + attention(norm(x)), then the same with the MLP."""
        wanted = self.checkpoint_attention and self.training
        x = self._drop(recompute(self._attend, x, wanted=wanted)).add_(x)
        return self._drop(self.mlp(x, self.norm2)).add_(x)

    def _attend(self, x: Tensor) -> Tensor:
        """Pad and shift the video, attend inside windows, and undo the shift and the padding."""
        sizes = x.shape[1:4]
        window, shift = self._window_in_use(x.shape[1], x.shape[2], x.shape[3])
        # The backward pass recomputes the normalised, padded and shifted copy of x.
        pack = partial(self._pack, window=window, shift=shift)
        qkv = recompute(pack, x, wanted=not is_small(x.numel()))
        x = self.attn(qkv, window, shift)
        if any(shift):
            x = x.roll(shift, dims=(1, 2, 3))
        if x.shape[1:4] != sizes:
            x = x[:, : sizes[0], : sizes[1], : sizes[2]]
        return x

    def _pack(self, x: Tensor, *, window: Window, shift: Window) -> Tensor:
        """Normalise, pad and shift the feature, and return its queries, keys and values."""
        x = self.norm1(x)
        pad = [-s % w for w, s in zip(window, x.shape[1:4], strict=True)]
        if any(pad):
            x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        if any(shift):
            x = x.roll([-d for d in shift], dims=(1, 2, 3))
        return self.attn.pack(x)

    def _window_in_use(self, *sizes: int) -> tuple[Window, Window]:
        """Return the window and its shift for a video of these sizes `(t, h, w)`.

        Along an axis that is not longer than the window, the window is the axis, without a shift.
        """
        axes = list(zip(self.window, self.shift, sizes, strict=True))
        (wt, dt), (wh, dh), (ww, dw) = ((w, d) if s > w else (s, 0) for w, d, s in axes)
        return (wt, wh, ww), (dt, dh, dw)

    def _drop(self, x: Tensor) -> Tensor:
        """Drop the residual branch of whole samples (Huang et al., stochastic depth, 2016)."""
        if not (self.training and self.drop_path):
            return x
        keep = torch.rand((x.shape[0], 1, 1, 1, 1), device=x.device) >= self.drop_path
        return x * keep.to(x.dtype) / (1 - self.drop_path)


class BlockGroup(nn.Module):
    """A sequence of attention blocks; every second block shifts its windows by half a window."""

    def __init__(
        self,
        channels: int,
        window: Window,
        heads: int,
        mlp_ratio: float,
        drop_path: list[float],
        *,
        mutual: bool = False,
        checkpoint_attention: bool = False,
        checkpoint_mlp: bool = False,
    ) -> None:
        super().__init__()
        half = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(
            AttentionBlock(
                channels,
                window,
                half if i % 2 else (0, 0, 0),
                heads,
                mlp_ratio,
                rate,
                mutual=mutual,
                checkpoint_attention=checkpoint_attention,
                checkpoint_mlp=checkpoint_mlp,
            )
            for i, rate in enumerate(drop_path)
        )

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Return the feature after all blocks."""
        for block in self.blocks:
            x = block(x)
        return x
