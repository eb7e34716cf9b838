"""Fuse the spike feature into the frame feature of the same scale.

In: the frame feature `(b, t, h, w, c)` and the spike feature `(b, s, h, w, c)` over the same time.
Out: the fused frame feature `(b, t, h, w, c)`. `CrossAttentionFusion` attends from the frames to
the spikes: along time at the same pixel (with `TemporalAttention`), or in a window of pixels over
all instants (with `SpikeWindowAttention`). `ConcatFusion` concatenates channels, without attention.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.chunks import Chunks
from vrtspike.model.recompute import recompute
from vrtspike.model.temporal import (
    MLP,
    TemporalAttention,
    initial_slopes,
    resample_time,
    temporal_bias,
)
from vrtspike.model.windows import relative_position_index, relative_position_rows


class SpikeWindowAttention(nn.Module):
    """Multi-head attention from the frames to the spikes of all instants in a window of pixels.

    To the score we add a learned bias for the offset between two pixels and, with `biased`, the
    bias over time of `vrtspike.model.temporal`. Windows at the lower and right border are smaller
    if the picture does not divide into windows.
    """

    bias_rows: Tensor

    def __init__(self, channels: int, heads: int, window: int, *, biased: bool = True) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        whole = (1, window, window)
        table = torch.empty(relative_position_rows(whole), heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        rows = relative_position_index(whole, whole, self.relative_position_bias_table.device)
        self.register_buffer("bias_rows", rows.view(window, window, window, window), False)
        self.slopes = initial_slopes(heads) if biased else None

    def forward(
        self, query: Float[Tensor, "b t h w c"], source: Float[Tensor, "b s h w c"]
    ) -> Float[Tensor, "b t h w c"]:
        """Attend in one row of windows at a time; the backward pass recomputes the scores."""
        features = (self.q(query), *self.kv(source).chunk(2, dim=-1))
        bands = zip(*(torch.split(x, self.window, dim=2) for x in features), strict=True)
        projected: Tensor = self.proj(torch.cat([self._band(*band) for band in bands], dim=2))
        return projected

    def _band(self, *band: Tensor) -> Tensor:
        """Attend in the full windows of a row of windows, and in the narrower one at its end."""
        width = band[0].shape[3]
        rest = width % self.window
        parts = zip(*(torch.split(x, [width - rest, rest], dim=3) for x in band), strict=True)
        out = [recompute(self._attend, *part) for part in parts if part[0].shape[3]]
        return torch.cat(out, dim=3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend in a row of windows of equal size."""
        height, width = q.shape[2], min(self.window, q.shape[3])
        bias = self._bias(q.shape[1], k.shape[1], height, width)
        windows = "b t i (n j) (m d) -> b n m (t i j) d"
        q, k, v = (rearrange(x, windows, j=width, m=self.heads) for x in (q, k, v))
        score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
        out: Tensor = score.softmax(dim=-1).to(v.dtype) @ v
        return rearrange(out, "b n m (t i j) d -> b t i (n j) (m d)", i=height, j=width)

    def _bias(self, queries: int, keys: int, height: int, width: int) -> Tensor:
        """Return the bias `(m, t*i*j, s*i*j)` for the scores of a window of `height` x `width`."""
        row = self.bias_rows[:height, :width, :height, :width].flatten(2).flatten(0, 1)
        bias: Tensor = rearrange(self.relative_position_bias_table[row], "i j m -> m 1 i 1 j")
        if self.slopes is not None:
            along_t = temporal_bias(self.slopes, queries, keys)
            bias = bias + rearrange(along_t, "m t s -> m t 1 s 1")
        bias = bias.expand(-1, queries, -1, keys, -1)
        return rearrange(bias, "m t i s j -> m (t i) (s j)")


class CrossAttentionFusion(nn.Module):
    """Attention from the frames to the spikes, then an MLP, each pre-norm and with a skip.

    With `zero_init` the last layers of both start at zero: the frame feature passes unchanged.
    """

    def __init__(
        self,
        channels: int,
        attention: TemporalAttention | SpikeWindowAttention,
        mlp_ratio: float,
        *,
        chunks: Chunks,
        checkpoint_attention: bool = False,
        checkpoint_mlp: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        self.chunks = chunks
        self.checkpoint_attention, self.checkpoint_mlp = checkpoint_attention, checkpoint_mlp
        self.norm_query = nn.LayerNorm(channels)
        self.norm_source = nn.LayerNorm(channels)
        self.attn = attention
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio)
        if zero_init:
            for layer in (self.attn.proj, self.mlp.fc2):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, frames: Float[Tensor, "b t h w c"], spikes: Float[Tensor, "b s h w c"]
    ) -> Float[Tensor, "b t h w c"]:
        """Return the fused frame feature."""
        checkpoint = self.checkpoint_attention and self.training
        x = frames + self.chunks.run(self._attend, frames, spikes, checkpoint=checkpoint)
        wanted = self.checkpoint_mlp and self.training
        return x + recompute(self._mlp, x, wanted=wanted)

    def _attend(self, frames: Tensor, spikes: Tensor) -> Tensor:
        out: Tensor = self.attn(self.norm_query(frames), self.norm_source(spikes))
        return out

    def _mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm_mlp(x))
        return out


class ConcatFusion(nn.Module):
    """Concatenate the channels of both features and mix them with a linear layer.

    With `zero_init` the layer starts as the identity on the frame feature.
    """

    def __init__(self, channels: int, *, zero_init: bool = False) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * channels, channels)
        if zero_init:
            with torch.no_grad():
                self.mix.weight.copy_(torch.eye(channels, 2 * channels))
            nn.init.zeros_(self.mix.bias)

    def forward(
        self, frames: Float[Tensor, "b t h w c"], spikes: Float[Tensor, "b s h w c"]
    ) -> Float[Tensor, "b t h w c"]:
        """Return the fused feature; spikes are resampled in time to the t frames."""
        spikes = resample_time(spikes, frames.shape[1])
        out: Tensor = self.mix(torch.cat((frames, spikes.to(frames.dtype)), dim=-1))
        return out
