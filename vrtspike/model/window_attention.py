"""Attention inside the windows of a video.

In: packed queries, keys and values `(b, t, h, w, 3*c)`, already shifted (rolled) by `shift`; t, h
and w are multiples of the window. Out: the attention output of each token, `(b, t, h, w, c)`.

    out = softmax(q k^T / sqrt(d) + bias + mask) v        in every window and head

`vrtspike.model.windows` explains the mask.

Mutual attention is computed together with the self attention of its layer. It has three more parts
of `qkv`, to which we add a code of the position in the window. Its windows span one frame, and the
two frames of a pair query each other (Liang et al., VRT, 2022, section 3.2). As published, it masks
only in space.

On a CPU we compute the windows block by block; blocks are so small that their scores stay in the
cache. For a large video only `qkv` is kept, and the backward pass recomputes the scores; it also
sums the gradient of the learned bias. On other devices we call `scaled_dot_product_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, product
from math import prod
from operator import mul
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor

from vrtspike.model.recompute import is_small
from vrtspike.model.warp import full_precision
from vrtspike.model.windows import Grid, border_kinds, border_mask, border_masks

BLOCK_SCORES = 2**20
"""Number of scores computed at once on a CPU (4 MiB in float32); with their gradient they fit the
cache."""
KEPT_SCORES = 2**22
"""On a CPU, the softmax weights of a layer with up to this many scores are kept for the backward
pass; those of a larger layer are recomputed."""


def attend_windows(
    qkv: Float[Tensor, "b t h w c3"],
    bias: Float[Tensor, "m n n"],
    code: Float[Tensor, "n1 c1"] | None,
    grid: Grid,
) -> Float[Tensor, "b t h w c"]:
    """Attend inside every window of a video of packed queries, keys and values.

    With a `code` `(wh*ww, 3*c)` of positions, there is mutual attention too: `qkv` is
    `(b, t, h, w, 6*c)`, self attention first, and the result is `(b, t, h, w, 2*c)`, mutual
    attention first.
    """
    if qkv.device.type == "cpu":
        out: Tensor = _attend_on_cpu(qkv, bias, code, grid)
        return out
    return attend_by_sdpa(qkv, bias, code, grid)


def attend_by_sdpa(qkv: Tensor, bias: Tensor, code: Tensor | None, grid: Grid) -> Tensor:
    """Compute `attend_windows` with `scaled_dot_product_attention`."""
    if code is None:
        return _sdpa_in_windows(qkv, bias, grid)
    self_qkv, mutual_qkv = qkv.chunk(2, dim=-1)
    rows, columns = (
        size // edge for size, edge in zip(qkv.shape[2:4], grid.window[1:], strict=True)
    )
    tiled = repeat(code, "(wh ww) c -> (nh wh) (nw ww) c", nh=rows, nw=columns, wh=grid.window[1])
    mutual_qkv = _sdpa_in_windows(mutual_qkv + tiled.to(qkv.dtype), None, grid.pairs())
    return torch.cat((mutual_qkv, _sdpa_in_windows(self_qkv, bias, grid)), dim=-1)


def _sdpa_in_windows(qkv: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
    """Attend in one grid, with one call for all inner windows and one for each kind of border."""
    q, k, v = rearrange(
        qkv,
        "b (nt wt) (nh wh) (nw ww) (three m d) -> three b nt nh nw m (wt wh ww) d",
        three=3,
        m=grid.heads,
        **grid.sizes(),
    )
    if grid.mutual:
        q = rearrange(q, "b (pair two) ... -> b pair two ...", two=2).flip(2).flatten(1, 2)

    def attend(cut: tuple[slice, ...], border: tuple[bool, ...]) -> Tensor:
        axis = len(cut)
        if axis < 3 and grid.shift[axis]:
            inner = attend((*cut, slice(None, -1)), (*border, False))
            last = attend((*cut, slice(-1, None)), (*border, True))
            return torch.cat((inner, last), dim=axis + 1)
        if axis < 3:
            return attend((*cut, slice(None)), (*border, False))
        selected = (slice(None), *cut)
        mask = _bias_at_border(bias, grid, border, qkv.device)
        leading = q[selected].shape[:4]
        out = _sdpa(
            q[selected].flatten(0, 3), k[selected].flatten(0, 3), v[selected].flatten(0, 3), mask
        )
        return out.reshape(*leading, *out.shape[1:])

    return rearrange(
        attend((), ()),
        "b nt nh nw m (wt wh ww) d -> b (nt wt) (nh wh) (nw ww) (m d)",
        **grid.sizes(),
    )


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Call the library; pad heads with zeros to a multiple of 8, which its fused kernels need."""
    width = q.shape[-1]
    if missing := -width % 8:
        q, k, v = (F.pad(x, (0, missing)) for x in (q, k, v))
    if mask is not None:  # without the expansion torch takes a slow implementation
        mask = mask.to(q.dtype).expand(q.shape[0], -1, -1, -1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=width**-0.5)
    return out[..., :width]


def _bias_at_border(
    bias: Tensor | None, grid: Grid, border: tuple[bool, ...], device: torch.device
) -> Tensor | None:
    """Return bias plus mask `(m, n, n)` for windows at a border, or None if there is neither."""
    if not any(border):
        return bias
    mask = border_mask(grid.window, grid.shift, border, device)
    return mask.expand(grid.heads, -1, -1) if bias is None else bias + mask


class _Blockwise(torch.autograd.Function):
    """Window attention block by block; softmax weights are kept or recomputed."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, code: Tensor | None, grid: Grid, keep: bool
    ) -> Tensor:
        qkv = qkv.contiguous()
        out = qkv.new_empty((*qkv.shape[:4], qkv.shape[4] // 3))
        kept: list[Tensor] | None = [] if keep else None
        for part in _parts(bias, code, grid):
            part.forward(qkv, out, kept)
        ctx.save_for_backward(bias, code, *([qkv] if kept is None else kept))
        ctx.grid, ctx.keep, ctx.shape = grid, keep, qkv.shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        out_grad = gradients[0].contiguous()
        bias, code, *saved = ctx.saved_tensors
        qkv, kept = (None, iter(saved)) if ctx.keep else (saved[0], None)
        qkv_grad = out_grad.new_empty(ctx.shape)
        bias_grad = torch.zeros_like(bias)
        for part in _parts(bias, code, ctx.grid):
            part.backward(qkv, kept, out_grad, qkv_grad, bias_grad)
        if code is None:
            return qkv_grad, bias_grad, None, None, None
        code_grad = reduce(
            qkv_grad[..., qkv_grad.shape[-1] // 2 :],
            "b t (nh wh) (nw ww) c -> (wh ww) c",
            "sum",
            wh=ctx.grid.window[1],
            ww=ctx.grid.window[2],
        )
        return qkv_grad, bias_grad, code_grad.to(code.dtype), None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_on_cpu(qkv: Tensor, bias: Tensor, code: Tensor | None, grid: Grid) -> Tensor:
    """Attend block by block; keep the softmax weights for the backward pass if they are few."""
    scores = qkv.shape[:4].numel() * grid.tokens() * grid.heads
    keep = torch.is_grad_enabled() and is_small(scores, KEPT_SCORES)
    out: Tensor = _Blockwise.apply(qkv, bias, code, grid, keep)
    return out


class _ChannelPart(NamedTuple):
    """The channels that belong to a grid: part `number` (from 0) of `of` equal parts."""

    number: int
    of: int


class _Part(NamedTuple):
    """Attention in one grid, and the position of its channels in `qkv` and in the result."""

    grid: Grid
    bias: Tensor | None
    code: Tensor | None
    source: _ChannelPart
    target: _ChannelPart

    def forward(self, qkv: Tensor, out: Tensor, kept: list[Tensor] | None) -> None:
        """Write the attention output to `out`; append to `kept` what the backward pass needs."""
        source = _Windows(qkv, self.grid, self.source, parts=3)
        target = _Windows(out, self.grid, self.target, parts=1)
        masks, memory = _Masks(self.bias, source), _ScoreMemory()
        for block in source.blocks():
            if kept is not None:
                memory = _ScoreMemory()
            qkv_block = source.gather(block, self.code)
            q, k, v = qkv_block.unbind()
            weight = _weights(q, k, masks, block, memory.take(q))
            target.scatter(block, torch.bmm(weight, v))
            if kept is not None:
                kept += (qkv_block, weight)

    def backward(
        self,
        qkv: Tensor | None,
        kept: Iterator[Tensor] | None,
        out_grad: Tensor,
        qkv_grad: Tensor,
        bias_grad: Tensor,
    ) -> None:
        """Write the gradient to `qkv_grad`, and add to `bias_grad`.

        `kept` gives queries, keys, values and softmax weights of each block; if it is None, they
        are recomputed from `qkv`.
        """
        out_grads = _Windows(out_grad, self.grid, self.target, parts=1)
        target = _Windows(qkv_grad, self.grid, self.source, parts=3)
        source = None if qkv is None else _Windows(qkv, self.grid, self.source, parts=3)
        masks = None if source is None else _Masks(self.bias, source)
        memory, grad_memory = _ScoreMemory(), _ScoreMemory()
        for block in target.blocks():
            if kept is not None:
                qkv_block, weight = next(kept), next(kept)
                q, k, v = qkv_block.unbind()
            else:
                assert source is not None and masks is not None, "either kept, or made again"
                qkv_block = source.gather(block, self.code)
                q, k, v = qkv_block.unbind()
                weight = _weights(q, k, masks, block, memory.take(q))
            grad = out_grads.gather(block)[0]
            score_grad = torch.bmm(grad, v.transpose(1, 2), out=grad_memory.take(q))
            torch._softmax_backward_data(
                score_grad, weight, -1, weight.dtype, grad_input=score_grad
            )
            if self.bias is not None:
                bias_grad += score_grad.view(-1, *bias_grad.shape).sum(0)
            grads = torch.empty_like(qkv_block)
            q_grad, k_grad, v_grad = grads.unbind()
            _add_product(q_grad, score_grad, k, q.shape[-1] ** -0.5)
            _add_product(k_grad, score_grad.transpose(1, 2), q, q.shape[-1] ** -0.5)
            torch.bmm(weight.transpose(1, 2), grad, out=v_grad)
            target.scatter(block, grads)


def _parts(bias: Tensor, code: Tensor | None, grid: Grid) -> list[_Part]:
    """Return self attention and, with a code, mutual attention, whose result comes first."""
    if code is None:
        return [_Part(grid, bias, None, _ChannelPart(0, 1), _ChannelPart(0, 1))]
    position_code = rearrange(code, "n (p m d) -> p 1 m n d", p=3, m=grid.heads)
    return [
        _Part(grid, bias, None, _ChannelPart(0, 2), _ChannelPart(1, 2)),
        _Part(grid.pairs(), None, position_code, _ChannelPart(1, 2), _ChannelPart(0, 2)),
    ]


def _weights(q: Tensor, k: Tensor, masks: _Masks, block: _Block, out: Tensor) -> Tensor:
    """Write softmax(q k^T / sqrt(d) + bias + mask) `(windows * m, n, n)` to `out`; return it."""
    has_mask = masks.write(block, out)
    _add_product(out, q, k.transpose(1, 2), q.shape[-1] ** -0.5, beta=int(has_mask))
    return torch.softmax(out, dim=-1, out=out)


def _add_product(out: Tensor, a: Tensor, b: Tensor, scale: float, *, beta: int = 0) -> None:
    """Compute out = beta * out + scale * a b in place."""
    torch.baddbmm(out, a, b, beta=beta, alpha=scale, out=out)


_Strided = tuple[tuple[int, ...], tuple[int, ...], int]
"""Sizes, strides and offset of a view, in elements."""

_Block = tuple[slice, slice, slice, slice]
"""Windows that are computed at once: ranges along b, nt, nh and nw."""


class _Windows:
    """A view of a contiguous video `(b, t, h, w, of * parts * c)` as windows, without a copy.

    The views `(parts, b, nt, nh, nw, m, wt, wh, ww, d)` are made from strides, in one call each,
    because the time of small videos depends on the number of calls.
    """

    def __init__(self, video: Tensor, grid: Grid, part: _ChannelPart, *, parts: int) -> None:
        self.grid, self._video = grid, video
        batch, *sizes, channels = video.shape
        steps = video.stride()[:4]
        counts = [size // edge for size, edge in zip(sizes, grid.window, strict=True)]
        width = channels // (part.of * parts)
        head = width // grid.heads
        self.counts = (batch, *counts)
        self._edges = (grid.heads, *grid.window, head)
        windows = [step * edge for step, edge in zip(steps[1:], grid.window, strict=True)]
        self._strides = (width, steps[0], *windows, head, *steps[1:], 1)
        self._offset = video.storage_offset() + part.number * parts * width
        self._parts = parts
        self.device = video.device
        self.dtype = full_precision(video[:0]).dtype
        """Type of the scores: float32 or wider."""

    def blocks(self) -> Iterator[_Block]:
        """Cut the windows into blocks of about `BLOCK_SCORES`; mutual pairs stay together."""
        limit = max(1, BLOCK_SCORES // (self.grid.heads * self.grid.tokens() ** 2))
        cuts: list[list[slice]] = []
        for axis, count in reversed(list(enumerate(self.counts))):
            unit = 2 if axis == 1 and self.grid.mutual else 1
            pieces = -(-count // max(unit, limit // unit * unit))
            size = -(-count // (unit * pieces)) * unit
            cuts.insert(0, [slice(i, min(i + size, count)) for i in range(0, count, size)])
            limit = max(1, limit // size)
        times, rows, columns, samples = cuts[1], cuts[2], cuts[3], cuts[0]
        yield from product(samples, times, rows, columns)

    def gather(self, block: _Block, code: Tensor | None = None) -> Tensor:
        """Return a copy of a block, `(parts, windows * m, n, d)`, plus the position code if any."""
        heads, head = self._edges[0], self._edges[-1]
        windows = prod(cut.stop - cut.start for cut in block)
        shape = (self._parts, windows * heads, self.grid.tokens(), head)
        copy = torch.empty(shape, dtype=self.dtype, device=self.device)
        for copy_view, video_view in self._pieces(block):
            copy.as_strided(*copy_view).copy_(self._video.as_strided(*video_view))
        if code is not None:
            copy.view(self._parts, windows, heads, *shape[2:]).add_(code)
        return copy

    def scatter(self, block: _Block, parts: Tensor) -> None:
        """Write a block, `(parts, windows * m, n, d)`, back to the video."""
        for block_view, video_view in self._pieces(block):
            self._video.as_strided(*video_view).copy_(parts.as_strided(*block_view))

    def _pieces(self, block: _Block) -> Iterator[tuple[_Strided, _Strided]]:
        """Yield pairs of views to copy between: in the copy of a block, and in the video.

        One pair covers the whole block, except in mutual attention, where the queries of a frame
        come from the other frame of its pair.
        """
        counts = tuple(cut.stop - cut.start for cut in block)
        sizes = (self._parts, *counts, *self._edges)
        strides = tuple(accumulate(sizes[:0:-1], mul, initial=1))[::-1]
        starts = (cut.start for cut in block)
        offset = self._offset + sum(map(mul, starts, self._strides[1:5]))
        if not (self.grid.mutual and self._parts == 3):
            yield (sizes, strides, 0), (sizes, self._strides, offset)
            return
        keys = (2, *sizes[1:])
        yield (keys, strides, strides[0]), (keys, self._strides, offset + self._strides[0])
        queries = (*sizes[1:2], counts[1] // 2, *sizes[3:])
        steps, jumps = ((every[1], 2 * every[2], *every[3:]) for every in (strides, self._strides))
        for frame in (0, 1):
            other = offset + (1 - frame) * self._strides[2]
            yield (queries, steps, frame * strides[2]), (queries, jumps, other)


class _ScoreMemory:
    """Memory that blocks use for their scores one after the other; the first is the largest."""

    def __init__(self) -> None:
        self._whole: Tensor | None = None

    def take(self, queries: Tensor) -> Tensor:
        """Return memory `(windows * m, n, n)` for the scores of queries `(windows * m, n, d)`."""
        count, tokens, _ = queries.shape
        if self._whole is None:
            self._whole = queries.new_empty((count, tokens, tokens))
        return self._whole if count == len(self._whole) else self._whole[:count]


class _Masks:
    """Bias plus mask for each kind of border."""

    def __init__(self, bias: Tensor | None, windows: _Windows) -> None:
        grid, self._table = windows.grid, None if bias is None else bias.to(windows.dtype)
        self._kinds = None
        if any(grid.shift):
            borders, self._kinds = border_kinds(grid.shift, windows.counts, windows.device)
            masks = border_masks(grid.window, grid.shift, borders, windows.device)
            masks = masks.to(windows.dtype).expand(-1, grid.heads, -1, -1)
            self._table = masks if self._table is None else masks + self._table

    def write(self, block: _Block, scores: Tensor) -> bool:
        """Write bias plus mask for the windows of a block to `scores`; return False if none."""
        if self._table is None:
            return False
        by_window = scores.view(-1, *self._table.shape[-3:])
        if self._kinds is None:
            by_window.copy_(self._table)
        else:
            torch.index_select(self._table, 0, self._kinds[block].flatten(), out=by_window)
        return True
