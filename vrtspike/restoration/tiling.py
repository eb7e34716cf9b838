"""Overlapping tiles along one axis, and the weights that blend them.

In: the length of an axis, the greatest tile and its least overlap. Out: tiles that cover the axis
evenly (so they are often smaller than asked for, and never waste a frame on a sliver), and for each
the weight of its samples. Over all tiles the weights of a sample sum to 1.

Where two tiles overlap by v samples, the outer quarter of v on each side counts nothing, because a
model sees no context there; over the middle half the weights follow a raised cosine. So an operator
that reaches no further than a quarter of the overlap gives the same tiled as whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from vrtspike.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Tile:
    """Samples [start, stop) of an axis and their weights; over all tiles weights sum to 1."""

    start: int
    stop: int
    weights: Float[Tensor, " n"]


def cover(length: int, tile: int | None, overlap: int, *, multiple: int = 1) -> list[Tile]:
    """Cover [0, length) with tiles, as `spans` says, and weigh their samples."""
    parts = spans(length, tile, overlap, multiple=multiple)
    return _blend(length, parts)


def spans(
    length: int, tile: int | None, overlap: int, *, multiple: int = 1
) -> list[tuple[int, int]]:
    """Cover [0, length) with tiles whose ends are multiples of `multiple` (or the axis' end).

    A tile of None, or one that the axis fits in, gives one tile: the whole axis.
    """
    if tile is None or tile >= length:
        return [(0, length)]
    size, shared = tile // multiple * multiple, _round_up(overlap, multiple)
    if size < max(2 * shared, 1):
        raise ConfigError(
            "tiles share more than they keep",
            got=f"tile {tile}, overlap {overlap} (in multiples of {multiple})",
            expected="an overlap of at most half the tile",
            fix="make the overlap smaller or the tile larger",
        )
    count = math.ceil((length - shared) / (size - shared))
    size = min(size, _round_up(math.ceil((length + (count - 1) * shared) / count), multiple))
    room = _round_up(length - size, multiple)
    starts = [index * room // ((count - 1) * multiple) * multiple for index in range(count)]
    return [(start, min(start + size, length)) for start in starts]


def _blend(length: int, parts: list[tuple[int, int]]) -> list[Tile]:
    """Give each tile its weights, normalised so that those of a sample sum to 1."""
    shares = [stop - start for (_, stop), (start, _) in pairwise(parts)]
    weights = []
    for (start, stop), before, after in zip(parts, [0, *shares], [*shares, 0], strict=True):
        rising, falling = torch.ones(2, stop - start, dtype=torch.float64)
        rising[:before] = _ramp(before)
        falling[:after] = _ramp(after)
        weights.append(rising * falling.flip(0))
    total = torch.zeros(length, dtype=torch.float64)
    for (start, stop), weight in zip(parts, weights, strict=True):
        total[start:stop] += weight
    return [
        Tile(start, stop, (weight / total[start:stop]).float())
        for (start, stop), weight in zip(parts, weights, strict=True)
    ]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _ramp(shared: int) -> Tensor:
    """Return rising weights over an overlap: 0, then a raised cosine, then 1."""
    margin = shared // 4
    middle = shared - 2 * margin
    if middle == 0:
        return torch.ones(0, dtype=torch.float64)
    phase = (torch.arange(shared, dtype=torch.float64) - margin + 0.5) / middle
    return 0.5 - 0.5 * torch.cos(math.pi * phase.clamp(0, 1))
