"""Window attention over video: self and mutual, shifted and masked, and the block around it.

Features are channels-last, `(b, t, h, w, c)`. A window of (wt, wh, ww) tokens attends to itself
(self attention, with a relative position bias); in mutual attention a window of two frames is
split, and each frame queries the other. Odd blocks shift their windows by half a window; tokens
that the shift brings together from opposite borders are masked (Liu et al., Video Swin, 2021;
Liang et al., VRT, 2022, section 3.2). As published, mutual attention masks in space only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Window = tuple[int, int, int]
MASKED = -100.0


@lru_cache(maxsize=64)
def relative_position_index(window: Window, table: Window, device: torch.device) -> Tensor:
    """Return `(n, n)` rows of a bias table made for the window `table`, for a smaller `window`."""
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

    There are at most eight such masks, whatever the number of windows: tokens before and after the
    wrap of a shifted axis do not see each other.
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


@lru_cache(maxsize=16)
def sine_position(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return the sine position code `(height * width, channels)` of a window: y half, then x."""
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


class WindowAttention(nn.Module):
    """Attend inside windows: self attention, and mutual attention between two frames if asked."""

    def __init__(self, channels: int, window: Window, heads: int, *, mutual: bool) -> None:
        super().__init__()
        self.heads, self.window, self.mutual = heads, window, mutual
        table_rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(table_rows, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv_self = nn.Linear(channels, 3 * channels)
        if mutual:
            self.qkv_mut = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(2 * channels if mutual else channels, channels)

    def forward(
        self, windows: Float[Tensor, "b nt nh nw n c"], window: Window, shift: Window
    ) -> Float[Tensor, "b nt nh nw n c"]:
        """Attend inside each window of a grid of windows; `window`, `shift`: their actual size."""
        index = relative_position_index(window, self.window, windows.device)
        bias = rearrange(self.relative_position_bias_table[index], "i j m -> m i j")
        q, k, v = self._split_heads(self.qkv_self(windows))
        out = _attend_grid(q, k, v, bias, window, shift)
        if self.mutual:
            position = sine_position(window[1], window[2], windows.shape[-1], windows.device)
            code = position.repeat(2, 1).to(windows.dtype)
            q, k, v = self._split_heads(self.qkv_mut(windows + code))
            (q1, q2), (k1, k2), (v1, v2) = (x.chunk(2, dim=-2) for x in (q, k, v))
            frame, still = (1, *window[1:]), (0, *shift[1:])
            first = _attend_grid(q2, k1, v1, None, frame, still)
            second = _attend_grid(q1, k2, v2, None, frame, still)
            out = torch.cat((torch.cat((first, second), dim=-2), out), dim=-1)
        projected: Tensor = self.proj(out)
        return projected

    def _split_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(
            qkv, "b nt nh nw n (three m d) -> three b nt nh nw m n d", three=3, m=self.heads
        )
        return q, k, v


def _attend_grid(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, window: Window, shift: Window
) -> Tensor:
    """Attend in every window of a grid `(b, nt, nh, nw, heads, n, d)`; return `(..., n, c)`.

    Only the last windows along a shifted axis need a mask, so the grid is cut there: one call for
    all inner windows, one for each kind of border.
    """

    def attend(cut: tuple[slice, ...], border: tuple[bool, ...]) -> Tensor:
        axis = len(cut)
        if axis < 3 and shift[axis]:
            inner = attend((*cut, slice(None, -1)), (*border, False))
            last = attend((*cut, slice(-1, None)), (*border, True))
            return torch.cat((inner, last), dim=axis + 1)
        if axis < 3:
            return attend((*cut, slice(None)), (*border, False))
        mask = bias
        if any(border):
            wrap = border_mask(window, shift, border, q.device)
            mask = wrap if bias is None else bias + wrap
        where = (slice(None), *cut)
        grid = q[where].shape[:4]
        out = F.scaled_dot_product_attention(
            q[where].flatten(0, 3),
            k[where].flatten(0, 3),
            v[where].flatten(0, 3),
            attn_mask=None if mask is None else mask.to(q.dtype),
        )
        return rearrange(out, "g m n d -> g n (m d)").reshape(*grid, out.shape[2], -1)

    return attend((), ())


class GatedMLP(nn.Module):
    """GEGLU: fc2(gelu(fc11(x)) * fc12(x)) (Shazeer, GLU Variants Improve Transformer, 2020)."""

    def __init__(self, channels: int, hidden: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.fc11 = nn.Linear(channels, hidden)
        self.fc12 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out_channels or channels)

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch o"]:
        """Apply the gated layers to the last axis."""
        out: Tensor = self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))
        return out


class AttentionBlock(nn.Module):
    """Pre-norm window attention and gated MLP, both residual, with stochastic depth."""

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
        self.checkpoint_attention, self.checkpoint_mlp = checkpoint_attention, checkpoint_mlp
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads, mutual=mutual)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedMLP(channels, int(channels * mlp_ratio))

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Return the feature after one block."""
        x = x + self._drop(self._run(self._attend, x, self.checkpoint_attention))
        return x + self._drop(self._run(self._mlp, x, self.checkpoint_mlp))

    def _run(self, part: Callable[[Tensor], Tensor], x: Tensor, recompute: bool) -> Tensor:
        if recompute and self.training:
            out: Tensor = checkpoint(part, x, use_reentrant=False)
            return out
        return part(x)

    def _mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm2(x))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        """Cut the normalised feature into windows, attend, and put it together again."""
        sizes = x.shape[1:4]
        window, shift = self._fitted(x.shape[1], x.shape[2], x.shape[3])
        x = self.norm1(x)
        pad = [-s % w for w, s in zip(window, sizes, strict=True)]
        if any(pad):
            x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        if any(shift):
            x = x.roll([-d for d in shift], dims=(1, 2, 3))
        grid = dict(zip(("wt", "wh", "ww"), window, strict=True))
        windows = rearrange(x, "b (nt wt) (nh wh) (nw ww) c -> b nt nh nw (wt wh ww) c", **grid)
        windows = self.attn(windows, window, shift)
        x = rearrange(windows, "b nt nh nw (wt wh ww) c -> b (nt wt) (nh wh) (nw ww) c", **grid)
        if any(shift):
            x = x.roll(shift, dims=(1, 2, 3))
        if any(pad):
            x = x[:, : sizes[0], : sizes[1], : sizes[2]]
        return x

    def _fitted(self, *sizes: int) -> tuple[Window, Window]:
        """Return the window and its shift, cut to an axis that is not longer than the window."""
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
    """A row of attention blocks, every second one shifted by half a window."""

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
        """Apply the blocks in order."""
        for block in self.blocks:
            x = block(x)
        return x
