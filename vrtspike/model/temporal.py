"""Attention along time at every pixel: within the spike features, and from frames to spikes.

In and out: channels-last features `(b, t, h, w, c)`. The sequences are h*w many and t short, so
the products are taken per pixel with the channels of a head summed last, no sequence is copied
into a batch of its own, and results do not depend on how many pixels are computed at once.

Without positions, attention along t cannot tell the spikes of its own frame from another's. A
slope for each head, learned, lowers the score of distant instants: score = q.k / sqrt(d) -
slope * |t_query - t_key| (Press et al., ALiBi, ICLR 2022, here in both directions). Lengths may
differ: both axes span the same time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

SLOPES = (8.0, 2.0, 0.5, 0.0)


class TemporalAttention(nn.Module):
    """Multi-head attention along t, at every pixel by itself."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        temporal_bias: bool = True,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.max_tokens = heads, max_tokens
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.slopes: nn.Parameter | None = None
        if temporal_bias:
            slopes = [SLOPES[i % len(SLOPES)] for i in range(heads)]
            self.slopes = nn.Parameter(torch.tensor(slopes))

    def forward(
        self, query: Float[Tensor, "b t h w c"], source: Float[Tensor, "b s h w c"]
    ) -> Float[Tensor, "b t h w c"]:
        """Attend from each instant of `query` to all instants of `source` at the same pixel."""
        q = self.q(query) * (query.shape[-1] // self.heads) ** -0.5
        k, v = self.kv(source).chunk(2, dim=-1)
        parts = [
            self._attend(*(x[:, :, rows] for x in (q, k, v))) for rows in self._rows(query, source)
        ]
        out: Tensor = self.proj(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2))
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (rearrange(x, "b t h w (m d) -> b t h w m d", m=self.heads) for x in (q, k, v))
        score = (q[:, :, None] * k[:, None]).sum(-1)
        if self.slopes is not None:
            score = score - self._distance(q.shape[1], k.shape[1], q) * self.slopes.to(q.dtype)
        weight = score.softmax(dim=2)
        out = (weight[..., None] * v[:, None]).sum(2)
        return out.flatten(-2)

    def _distance(self, queries: int, keys: int, like: Tensor) -> Tensor:
        """Return |t_query - t_key| `(queries, keys, 1, 1, 1)` in frames of the query."""
        t_query = torch.arange(queries, device=like.device, dtype=like.dtype) + 0.5
        t_key = (torch.arange(keys, device=like.device, dtype=like.dtype) + 0.5) * (queries / keys)
        return (t_query[:, None] - t_key[None, :]).abs()[:, :, None, None, None]

    def _rows(self, query: Tensor, source: Tensor) -> list[slice]:
        """Cut the image into bands of rows of at most `max_tokens` tokens each."""
        height = query.shape[2]
        if self.max_tokens is None:
            return [slice(0, height)]
        tokens_a_row = query.shape[0] * max(query.shape[1], source.shape[1]) * query.shape[3]
        rows = max(1, self.max_tokens // tokens_a_row)
        return [slice(top, top + rows) for top in range(0, height, rows)]


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.fc2 = nn.Linear(int(channels * ratio), channels)

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        """Apply both layers to the last axis."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SpikeTemporalAttention(nn.Module):
    """Pre-norm self-attention along t and MLP over spike features, both residual."""

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float,
        *,
        temporal_bias: bool,
        max_tokens: int | None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = TemporalAttention(
            channels, heads, temporal_bias=temporal_bias, max_tokens=max_tokens
        )
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio)

    def forward(self, x: Float[Tensor, "b s h w c"]) -> Float[Tensor, "b s h w c"]:
        """Return the spike feature, each instant informed of the others."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class TemporalCrossAttention(nn.Module):
    """Fuse spikes into frames: queries from the frames, keys and values from the spikes."""

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float,
        *,
        temporal_bias: bool,
        max_tokens: int | None,
        zero_init: bool,
    ) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(channels)
        self.norm_source = nn.LayerNorm(channels)
        self.attn = TemporalAttention(
            channels, heads, temporal_bias=temporal_bias, max_tokens=max_tokens
        )
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio)
        if zero_init:
            for layer in (self.attn.proj, self.mlp.fc2):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, frames: Float[Tensor, "b t h w c"], spikes: Float[Tensor, "b s h w c"]
    ) -> Float[Tensor, "b t h w c"]:
        """Return the frames' feature, informed of the spikes at the same pixels."""
        x = frames + self.attn(self.norm_query(frames), self.norm_source(spikes))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out
