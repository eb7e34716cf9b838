"""Attention along time at each pixel: between spikes, and from frames to spikes.

In and out: channels-last features `(b, t, h, w, c)`. There is one short sequence for each pixel and
head. The heads of neighbouring pixels lie side by side in memory, so that one batched product
computes a clip without a copy (several clips are copied once).

Without positions, attention along t cannot tell the spikes of its own frame from those of another
frame. A learned slope for each head lowers the score of distant instants:

    score = q.k / sqrt(d) - slope * |t_query - t_key|

(Press et al., ALiBi, ICLR 2022, here in both directions). Queries and keys may differ in number;
both span the same time.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.model.chunks import Chunks
from vrtspike.model.recompute import recompute

SLOPES = (8.0, 2.0, 0.5, 0.0)


def initial_slopes(heads: int) -> nn.Parameter:
    """Return the initial slope `(m,)` of each head.

    A head with the largest slope attends to its own instant; a slope of 0 treats all alike.
    """
    return nn.Parameter(torch.tensor([SLOPES[i % len(SLOPES)] for i in range(heads)]))


def temporal_bias(slopes: Float[Tensor, " m"], queries: int, keys: int) -> Float[Tensor, "m t s"]:
    """Return -slope * |t_query - t_key|; the unit of time is the distance of two queries."""
    distance = _time_distance(queries, keys, slopes.device).to(slopes.dtype)
    return -slopes[:, None, None] * distance


@lru_cache(maxsize=64)
def _time_distance(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return |t_query - t_key|, `(t, s)`."""
    with torch.inference_mode(False):  # a later training may use the cached tensor
        t_query = torch.arange(queries, device=device) + 0.5
        t_key = (torch.arange(keys, device=device) + 0.5) * (queries / keys)
        return (t_query[:, None] - t_key).abs()


def resample_time(x: Float[Tensor, "b s ..."], instants: int) -> Float[Tensor, "b t ..."]:
    """Resample linearly to `instants` instants over the same span of time."""
    if x.shape[1] == instants:
        return x
    flat = rearrange(x.flatten(2), "b s n -> b n s")
    flat = F.interpolate(flat, instants, mode="linear", align_corners=False)
    return rearrange(flat, "b n t -> b t n").reshape(x.shape[0], instants, *x.shape[2:])


class TemporalAttention(nn.Module):
    """Multi-head attention along t, at each pixel independently."""

    def __init__(self, channels: int, heads: int, *, biased: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.slopes = initial_slopes(heads) if biased else None

    def forward(
        self, query: Float[Tensor, "b t h w c"], source: Float[Tensor, "b s h w c"]
    ) -> Float[Tensor, "b t h w c"]:
        """Attend from each instant of `query` to all instants of `source` at the same pixel."""
        # Two products for keys and values, because the halves of one are not contiguous.
        k_weight, v_weight = rearrange(self.kv.weight, "(two o) c -> two o c", two=2).unbind()
        k_bias, v_bias = rearrange(self.kv.bias, "(two o) -> two o", two=2).unbind()
        q = self._sequences(self.q(query))
        k = self._sequences(F.linear(source, k_weight, k_bias))
        v = self._sequences(F.linear(source, v_weight, v_bias))
        score = torch.bmm(q, k.transpose(1, 2))
        scale = q.shape[-1] ** -0.5
        if self.slopes is None:
            score = score * scale
        else:
            bias = temporal_bias(self.slopes, query.shape[1], source.shape[1])
            score = torch.add(bias, score.view(-1, *bias.shape), alpha=scale).flatten(0, 1)
        out = torch.bmm(score.softmax(dim=-1).to(v.dtype), v)
        batch, _, height, width, _ = query.shape
        out = rearrange(
            out, "(b h w m) t d -> b t h w (m d)", b=batch, h=height, w=width, m=self.heads
        )
        projected: Tensor = self.proj(out)
        return projected

    def _sequences(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t h w (m d) -> (b h w m) t d", m=self.heads)


class MLP(nn.Module):
    """A linear layer, GELU, and a linear layer; `ratio` is the hidden width over `channels`."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.fc2 = nn.Linear(int(channels * ratio), channels)

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        """Return fc2(gelu(fc1(x)))."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SpikeTemporalAttention(nn.Module):
    """Self attention along t, then an MLP, on spike features; each pre-norm and with a skip."""

    def __init__(
        self,
        channels: int,
        attention: TemporalAttention,
        mlp_ratio: float,
        *,
        chunks: Chunks,
        checkpoint_attention: bool = False,
        checkpoint_mlp: bool = False,
    ) -> None:
        super().__init__()
        self.chunks = chunks
        self.checkpoint_attention, self.checkpoint_mlp = checkpoint_attention, checkpoint_mlp
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio)

    def forward(self, x: Float[Tensor, "b s h w c"]) -> Float[Tensor, "b s h w c"]:
        """Return x + attention(norm(x)), then the same with the MLP."""
        checkpoint = self.checkpoint_attention and self.training
        x = x + self.chunks.run(self._attend, x, checkpoint=checkpoint)
        wanted = self.checkpoint_mlp and self.training
        return x + recompute(self._mlp, x, wanted=wanted)

    def _attend(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        out: Tensor = self.attn(normed, normed)
        return out

    def _mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm2(x))
        return out
