"""Attention inside the windows of a video: where they lie, what they see, and how it is computed.

In: packed queries, keys and values `(b, t, h, w, 3*c)` whose sizes are multiples of the window, and
already shifted (rolled) by `shift`. Out: what each token gathered, `(b, t, h, w, c)`.

    out = softmax(q k^T / sqrt(d) + bias + mask) v        in every window and head

The mask parts tokens that the roll brings together from opposite borders; only windows that are
last along a shifted axis need one, so there are at most eight, whatever the number of windows.

Mutual attention comes with the self attention of its layer: three more parts of `qkv`, to which a
code of the place in the window is added. Its windows span one frame, and the two frames of a pair
query each other (Liang et al., VRT, 2022, section 3.2). As published, it masks in space only.

On a CPU the windows are computed block by block, small enough that scores stay in the cache; the
backward pass computes them again, so that nothing but `qkv` is kept, and sums the gradient of a
learned bias on the way. Elsewhere `scaled_dot_product_attention` does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor

from vrtspike.model.warp import full_precision

Window = tuple[int, int, int]
MASKED = -100.0
BLOCK_SCORES = 2**20
"""Scores computed at once on a CPU (4 MiB in float32): they and their gradient fit the cache."""


def relative_position_rows(window: Window) -> int:
    """Return the rows of a bias table: one for each offset between two tokens of a window."""
    t, h, w = window
    return (2 * t - 1) * (2 * h - 1) * (2 * w - 1)


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

    Tokens before and after the wrap of a shifted axis do not see each other.
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


class Grid(NamedTuple):
    """How a video is cut into windows, and its channels into heads."""

    window: Window
    shift: Window
    heads: int
    mutual: bool = False
    """Windows span one frame, and a frame's queries are those of the other frame of its pair."""

    def pairs(self) -> Grid:
        """Return the grid of mutual attention beside this one of self attention."""
        return Grid((1, *self.window[1:]), (0, *self.shift[1:]), self.heads, mutual=True)

    def sizes(self) -> dict[str, int]:
        """Return the window's edges by the names that patterns use."""
        return dict(zip(("wt", "wh", "ww"), self.window, strict=True))

    def tokens(self) -> int:
        """Return the tokens of a window."""
        return self.window[0] * self.window[1] * self.window[2]


def attend_windows(
    qkv: Float[Tensor, "b t h w c3"],
    bias: Float[Tensor, "m n n"],
    code: Float[Tensor, "n1 c1"] | None,
    grid: Grid,
) -> Float[Tensor, "b t h w c"]:
    """Attend inside every window of a video of packed queries, keys and values.

    With a `code` `(wh*ww, 3*c)`, `qkv` holds those of self attention and then those of mutual
    attention, `(b, t, h, w, 6*c)`, and the result holds what mutual attention gathered and then
    what self attention did, `(b, t, h, w, 2*c)`.
    """
    if qkv.device.type == "cpu":
        out: Tensor = _attend_on_cpu(qkv, bias, code, grid)
        return out
    return attend_by_sdpa(qkv, bias, code, grid)


def attend_by_sdpa(qkv: Tensor, bias: Tensor, code: Tensor | None, grid: Grid) -> Tensor:
    """Compute the same by `scaled_dot_product_attention`."""
    if code is None:
        return _sdpa_in_windows(qkv, bias, grid)
    own, mutual = qkv.chunk(2, dim=-1)
    rows, columns = (
        size // edge for size, edge in zip(qkv.shape[2:4], grid.window[1:], strict=True)
    )
    tiled = repeat(code, "(wh ww) c -> (nh wh) (nw ww) c", nh=rows, nw=columns, wh=grid.window[1])
    mutual = _sdpa_in_windows(mutual + tiled.to(qkv.dtype), None, grid.pairs())
    return torch.cat((mutual, _sdpa_in_windows(own, bias, grid)), dim=-1)


def _sdpa_in_windows(qkv: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
    """Attend in one grid: one call for all inner windows, and one for each kind of border."""
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
        where = (slice(None), *cut)
        mask = _bias_at_border(bias, grid, border, qkv.device)
        many = q[where].shape[:4]
        out = _sdpa(q[where].flatten(0, 3), k[where].flatten(0, 3), v[where].flatten(0, 3), mask)
        return out.reshape(*many, *out.shape[1:])

    return rearrange(
        attend((), ()),
        "b nt nh nw m (wt wh ww) d -> b (nt wt) (nh wh) (nw ww) (m d)",
        **grid.sizes(),
    )


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Call the library; heads of a width that its fused kernels refuse are padded with zeros."""
    width = q.shape[-1]
    if missing := -width % 8:
        q, k, v = (F.pad(x, (0, missing)) for x in (q, k, v))
    if mask is not None:  # a mask that is not expanded is computed by the slow formula
        mask = mask.to(q.dtype).expand(q.shape[0], -1, -1, -1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=width**-0.5)
    return out[..., :width]


def _bias_at_border(
    bias: Tensor | None, grid: Grid, border: tuple[bool, ...], device: torch.device
) -> Tensor | None:
    """Return bias plus mask `(m, n, n)` of the windows at a border, or None where all is zero."""
    if not any(border):
        return bias
    mask = border_mask(grid.window, grid.shift, border, device)
    return mask.expand(grid.heads, -1, -1) if bias is None else bias + mask


class _Blockwise(torch.autograd.Function):
    """Window attention block by block; scores are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, code: Tensor | None, grid: Grid) -> Tensor:
        ctx.save_for_backward(qkv, bias, code)
        ctx.grid = grid
        out = qkv.new_empty((*qkv.shape[:4], qkv.shape[4] // 3))
        if code is None:
            _forward(qkv, out, bias, None, grid)
        else:
            (own, pairs), (pairs_out, own_out) = qkv.chunk(2, dim=-1), out.chunk(2, dim=-1)
            _forward(own, own_out, bias, None, grid)
            _forward(pairs, pairs_out, None, code, grid.pairs())
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        (out_grad,) = gradients
        qkv, bias, code = ctx.saved_tensors
        qkv_grad = torch.empty_like(qkv)
        bias_grad = torch.zeros_like(bias)
        if code is None:
            _backward(qkv, out_grad, qkv_grad, bias, bias_grad, None, ctx.grid)
            return qkv_grad, bias_grad, None, None
        (own, pairs), (own_grad, pairs_grad) = qkv.chunk(2, dim=-1), qkv_grad.chunk(2, dim=-1)
        pairs_out_grad, own_out_grad = out_grad.chunk(2, dim=-1)
        _backward(own, own_out_grad, own_grad, bias, bias_grad, None, ctx.grid)
        _backward(pairs, pairs_out_grad, pairs_grad, None, None, code, ctx.grid.pairs())
        size = ctx.grid.window[1:]
        code_grad = reduce(
            pairs_grad, "b t (nh wh) (nw ww) c -> (wh ww) c", "sum", wh=size[0], ww=size[1]
        )
        return qkv_grad, bias_grad, code_grad.to(code.dtype), None


_attend_on_cpu = torch.compiler.disable(_Blockwise.apply)  # type: ignore[no-untyped-call]


def _forward(
    qkv: Tensor, out: Tensor, bias: Tensor | None, code: Tensor | None, grid: Grid
) -> None:
    """Write what each token gathers in one grid to `out`."""
    source, target = _Windows(qkv, grid, parts=3), _Windows(out, grid, parts=1)
    places = _code_in_heads(code, grid, source.dtype)
    scores = source.room_for_scores()
    for block, mask in source.blocks(bias):
        q, k, v = source.gather_all(block, places)
        weight = _weights(q, k, mask, scores)
        target.scatter(block, 0, torch.bmm(weight, v))


def _backward(
    qkv: Tensor,
    out_grad: Tensor,
    qkv_grad: Tensor,
    bias: Tensor | None,
    bias_grad: Tensor | None,
    code: Tensor | None,
    grid: Grid,
) -> None:
    """Write the gradient of one grid to `qkv_grad`, and add to `bias_grad`."""
    source, target = _Windows(qkv, grid, parts=3), _Windows(qkv_grad, grid, parts=3)
    above = _Windows(out_grad, grid, parts=1)
    places = _code_in_heads(code, grid, source.dtype)
    scores, score_grads = source.room_for_scores(), source.room_for_scores()
    for block, mask in source.blocks(bias):
        q, k, v = source.gather_all(block, places)
        grad = above.gather(block, 0)
        weight = _weights(q, k, mask, scores)
        target.scatter(block, 2, torch.bmm(weight.transpose(1, 2), grad))
        score_grad = torch.bmm(grad, v.transpose(1, 2), out=score_grads[: len(q)])
        torch._softmax_backward_data(score_grad, weight, -1, weight.dtype, grad_input=score_grad)
        if bias_grad is not None:
            for window in score_grad.view(-1, *bias_grad.shape):
                bias_grad += window
        target.scatter(block, 1, torch.bmm(score_grad.transpose(1, 2), q))
        target.scatter(block, 0, torch.bmm(score_grad, k).mul_(source.scale))


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, room: Tensor) -> Tensor:
    """Return softmax(q k^T + bias) `(windows * m, n, n)`, written into `room`; q is scaled."""
    scores = torch.bmm(q, k.transpose(1, 2), out=room[: len(q)])
    if bias is not None:
        scores.view(-1, *bias.shape).add_(bias)
    return torch.softmax(scores, dim=-1, out=scores)


def _code_in_heads(code: Tensor | None, grid: Grid, dtype: torch.dtype) -> Tensor | None:
    """Return the code as `(3, m, n, d)`, to add to the queries, keys and values of a window."""
    if code is None:
        return None
    return rearrange(code.to(dtype), "n (p m d) -> p m n d", p=3, m=grid.heads).contiguous()


class _Block(NamedTuple):
    """Some windows that are computed at once: one group of frames, some rows and columns of it."""

    sample: int
    time: int
    rows: slice
    columns: slice
    border: tuple[bool, bool, bool]


class _Windows:
    """A video `(b, t, h, w, parts*c)` seen as windows, without a copy."""

    def __init__(self, video: Tensor, grid: Grid, *, parts: int) -> None:
        self._grid = grid
        self._windows = rearrange(
            video,
            "b (nt wt) (nh wh) (nw ww) (p m d) -> b nt p nh nw m wt wh ww d",
            p=parts,
            m=grid.heads,
            **grid.sizes(),
        )
        self.scale = float(self._windows.shape[-1]) ** -0.5
        self.dtype = full_precision(video[:0]).dtype
        """Scores are computed in float32 at least."""
        self._most = max(1, BLOCK_SCORES // (grid.heads * grid.tokens() ** 2))

    def blocks(self, bias: Tensor | None) -> Iterator[tuple[_Block, Tensor | None]]:
        """Cut the windows into blocks that share a mask; yield each with its bias plus mask."""
        count_b, count_t, _, *counts = self._windows.shape[:5]
        bias = None if bias is None else bias.to(self.dtype)
        regions = [
            [(range(count - 1), False), (range(count - 1, count), True)]
            if moved
            else [(range(count), False)]
            for count, moved in zip((count_t, *counts), self._grid.shift, strict=True)
        ]
        for (times, last_t), (rows, last_h), (columns, last_w) in product(*regions):
            border = (last_t, last_h, last_w)
            mask = _bias_at_border(bias, self._grid, border, self._windows.device)
            wide = max(1, min(len(columns), self._most))
            high = max(1, self._most // wide)
            places = product(range(count_b), times, rows[::high], columns[::wide])
            for sample, time, y, x in places:
                below, right = min(y + high, rows.stop), min(x + wide, columns.stop)
                yield _Block(sample, time, slice(y, below), slice(x, right), border), mask

    def room_for_scores(self) -> Tensor:
        """Return room for the scores of any block, `(windows * m, n, n)`."""
        windows = min(self._most, self._windows.shape[3] * self._windows.shape[4])
        tokens = self._grid.tokens()
        shape = (windows * self._grid.heads, tokens, tokens)
        return self._windows.new_empty(shape, dtype=self.dtype)

    def gather_all(self, block: _Block, code: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Copy the scaled queries, the keys and the values of a block."""
        parts = [self.gather(block, part) for part in range(3)]
        if code is not None:
            for part, addend in zip(parts, code, strict=True):
                part.view(-1, *addend.shape).add_(addend)
        return parts[0].mul_(self.scale), parts[1], parts[2]

    def gather(self, block: _Block, part: int) -> Tensor:
        """Copy one part of a block to `(windows * m, n, d)`."""
        view = self._at(block, part)
        copy = view.new_empty(view.shape, dtype=self.dtype).copy_(view)
        return copy.view(-1, self._grid.tokens(), view.shape[-1])

    def scatter(self, block: _Block, part: int, values: Tensor) -> None:
        """Write one part of a block, `(windows * m, n, d)`, to its place."""
        place = self._at(block, part)
        place.copy_(values.view(place.shape))

    def _at(self, block: _Block, part: int) -> Tensor:
        is_query = part == 0 and self._windows.shape[2] == 3
        time = block.time ^ 1 if is_query and self._grid.mutual else block.time
        return self._windows[block.sample, time, part, block.rows, block.columns]
