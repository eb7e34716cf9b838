"""VRT computed the plain way, with the parameters of a model: what its fast paths are held against.

In and out: those of the parts of `vrtspike.model` that the functions are named after. Every window
is cut out and has a mask of its own, scores are written out, frame pairs are taken one by one, the
deformable convolution is torchvision's, and all that autograd wants is kept. Nothing here shares
code with the fast paths; in evaluation and in training without stochastic depth both give the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from vrtspike.model.attention import AttentionBlock, BlockGroup, WindowAttention
from vrtspike.model.deform import DeformableAlignment
from vrtspike.model.spynet import SpyNet
from vrtspike.model.temporal import TemporalAttention
from vrtspike.model.vrt import VRT, RefineGroup, Stage

Size = tuple[int, ...]
Flows = list[tuple[Tensor, Tensor]]
MASKED = -100.0


def restore(vrt: VRT, blurred: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t 3 h w"]:
    """Restore frames whose sizes are multiples of 8 and at least 64."""
    rgb = blurred[:, :, :3]
    flows = pair_flows(vrt.spynet, rgb)
    backward, forward = each_pair(nearest4_warp, blurred, *flows[0])
    x = torch.cat((blurred, _with_zeros(backward, after=True), _with_zeros(forward)), dim=2)
    first = vrt.conv_first(rearrange(x, "b t c h w -> b t h w c"))
    x, skips = first, list[Tensor]()
    for number, vrt_stage in enumerate(vrt.stages()):
        scale = (0, 1, 2, 3, 2, 1, 0)[number]
        if number > 4:
            x = x + skips[scale + 1]
        x = stage(vrt_stage, x, *flows[scale])
        skips.append(x)
    x = x + skips[0]
    entry, *groups = vrt.stage8
    x = entry(x)
    for group in groups:
        assert isinstance(group, RefineGroup)
        x = x + group.linear(block_group(group.residual_group, x))
    x = first + vrt.conv_after_body(vrt.norm(x))
    residual: Tensor = rearrange(vrt.conv_last(x), "b t h w c -> b t c h w")
    return rgb + residual


def stage(
    module: Stage, x: Float[Tensor, "b t h w c"], backward: Tensor, forward: Tensor
) -> Float[Tensor, "b t h2 w2 c"]:
    """Compute one of stages 1 to 7."""
    x = module.reshape(x)
    x = module.linear1(block_group(module.residual_group1, x)) + x
    x = module.linear2(block_group(module.residual_group2, x)) + x
    images = rearrange(x, "b t h w c -> b t c h w")
    nexts, previous = aligned_neighbours(module.pa_deform, images, backward, forward)
    beside = torch.cat((images, nexts, previous), dim=2)
    return gated_mlp(module.pa_fuse, rearrange(beside, "b t c h w -> b t h w c"))


def block_group(group: BlockGroup, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
    """Apply blocks in order."""
    for block in group.blocks:
        assert isinstance(block, AttentionBlock)
        x = attention_block(block, x)
    return x


def attention_block(
    block: AttentionBlock, x: Float[Tensor, "b t h w c"]
) -> Float[Tensor, "b t h w c"]:
    """Attend inside windows, then apply the MLP, both residual."""
    x = x + window_attention(block.attn, block.norm1(x), block.window, block.shift)
    return x + gated_mlp(block.mlp, block.norm2(x))


def gated_mlp(mlp: nn.Module, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch o"]:
    """Apply fc2(gelu(fc11(x)) * fc12(x))."""
    out: Tensor = mlp.fc2(F.gelu(mlp.fc11(x)) * mlp.fc12(x))  # type: ignore[operator]
    return out


def window_attention(
    attention: WindowAttention, x: Float[Tensor, "b t h w c"], window: Size, shift: Size
) -> Float[Tensor, "b t h w c"]:
    """Cut a padded and shifted video into windows, attend in each, and put it together again."""
    sizes = x.shape[1:4]
    shift = tuple(d if n > w else 0 for n, w, d in zip(sizes, window, shift, strict=True))
    window = tuple(min(n, w) for n, w in zip(sizes, window, strict=True))
    pad = [-n % w for n, w in zip(sizes, window, strict=True)]
    x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
    region = _regions(x.shape[1:4], window, shift, x.device)
    x = x.roll([-d for d in shift], dims=(1, 2, 3))
    batch, grid = x.shape[0], [n // w for n, w in zip(x.shape[1:4], window, strict=True)]
    windows = "b (nt wt) (nh wh) (nw ww) c -> b (nt nh nw) (wt wh ww) c"
    edges = dict(zip(("wt", "wh", "ww"), window, strict=True))
    tokens = rearrange(x, windows, **edges)
    regions = rearrange(region[None, ..., None], windows, **edges)[0, :, :, 0]
    out = attend(attention, tokens, regions, window)
    cells = dict(zip(("nt", "nh", "nw"), grid, strict=True))
    back = "b (nt nh nw) (wt wh ww) c -> b (nt wt) (nh wh) (nw ww) c"
    x = rearrange(out, back, b=batch, **edges, **cells).roll(shift, dims=(1, 2, 3))
    return x[:, : sizes[0], : sizes[1], : sizes[2]]


def attend(
    attention: WindowAttention, x: Float[Tensor, "b g n c"], regions: Tensor, window: Size
) -> Float[Tensor, "b g n c"]:
    """Attend in windows of tokens that see their own region only, `(windows, n)`."""
    bias = attention.relative_position_bias_table[_bias_rows(window, attention.window, x.device)]
    bias = rearrange(bias, "i j m -> m i j")
    mask = _mask(regions)
    q, k, v = attention.qkv_self(x).chunk(3, dim=-1)
    own = _attend(q, k, v, attention.heads, bias + mask[:, None])
    if not attention.mutual:
        out: Tensor = attention.proj(own)
        return out
    code = position_code(window[1], window[2], x.shape[-1], x.device)
    q, k, v = attention.qkv_mut(x + repeat(code, "n c -> (two n) c", two=2)).chunk(3, dim=-1)
    half = x.shape[2] // 2
    (q1, q2), (k1, k2), (v1, v2) = (part.split(half, dim=2) for part in (q, k, v))
    # The published mask of the first frame stands for both: it knows no shift in time.
    mask = mask[:, None, :half, :half]
    first = _attend(q2, k1, v1, attention.heads, mask)
    second = _attend(q1, k2, v2, attention.heads, mask)
    mutual = torch.cat((first, second), dim=2)
    out = attention.proj(torch.cat((mutual, own), dim=-1))
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v of windows `(b, g, n, c)`."""
    q, k, v = (rearrange(x, "b g n (m d) -> b g m n d", m=heads) for x in (q, k, v))
    score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    out: Tensor = rearrange(score.softmax(-1) @ v, "b g m n d -> b g n (m d)")
    return out


def _mask(regions: Tensor) -> Tensor:
    """Return a mask for each window, `(windows, n, n)`."""
    return (regions[:, :, None] != regions[:, None, :]) * MASKED


def _regions(sizes: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """Number the regions of a shifted video: three along each shifted axis, as in Swin."""
    region = torch.zeros(tuple(sizes), device=device)
    for axis, (size, edge, moved) in enumerate(zip(sizes, window, shift, strict=True)):
        place = torch.arange(size, device=device)
        part = (place >= size - edge).float() + (place >= size - moved).float() * bool(moved)
        shape = [1, 1, 1]
        shape[axis] = size
        region = 3 * region + part.view(shape) * bool(moved)
    return region


def _bias_rows(window: Size, table: Size, device: torch.device) -> Tensor:
    """Return the rows of the bias table, `(n, n)`, for each pair of tokens."""
    places = torch.tensor(list(product(*(range(size) for size in window))), device=device)
    offset = places[:, None] - places[None, :] + torch.tensor(table, device=device) - 1
    return (offset[..., 0] * (2 * table[1] - 1) + offset[..., 1]) * (2 * table[2] - 1) + offset[
        ..., 2
    ]


def position_code(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return the sine code `(height * width, channels)` of a window: of rows, then of columns."""
    code = torch.empty(height, width, channels)
    half = channels // 2
    for y, x, i in product(range(height), range(width), range(half)):
        wave = math.cos if i % 2 else math.sin
        frequency = 10000 ** (2 * (i // 2) / half)
        code[y, x, i] = wave((y + 1) / (height + 1e-6) * 2 * math.pi / frequency)
        code[y, x, half + i] = wave((x + 1) / (width + 1e-6) * 2 * math.pi / frequency)
    return code.flatten(0, 1).to(device)


def pair_flows(spynet: SpyNet, frames: Float[Tensor, "b t 3 h w"]) -> Flows:
    """Return (backward, forward) flows `(b, t-1, 2, h, w)` for each scale, pair by pair."""
    backward, forward = [], []
    for i in range(frames.shape[1] - 1):
        backward.append(spynet(frames[:, i], frames[:, i + 1]))
        forward.append(spynet(frames[:, i + 1], frames[:, i]))
    both = (
        [torch.stack(flows, 1) for flows in zip(*way, strict=True)] for way in (backward, forward)
    )
    return list(zip(*both, strict=True))


def each_pair(
    warp: Callable[[Tensor, Tensor], Tensor], frames: Tensor, backward: Tensor, forward: Tensor
) -> tuple[Tensor, Tensor]:
    """Warp each frame's next and previous one to it, pair by pair: `(b, t-1, c, h, w)` both."""
    pairs = range(frames.shape[1] - 1)
    nexts = [warp(frames[:, i + 1], backward[:, i]) for i in pairs]
    previous = [warp(frames[:, i], forward[:, i]) for i in pairs]
    return torch.stack(nexts, dim=1), torch.stack(previous, dim=1)


def _with_zeros(x: Tensor, *, after: bool = False) -> Tensor:
    """Put a frame of zeros before the first one, or after the last."""
    nothing = torch.zeros_like(x[:, :1])
    return torch.cat((x, nothing) if after else (nothing, x), dim=1)


def flow_warp(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"]
) -> Float[Tensor, "n c h w"]:
    """Sample bilinearly where the flow points; outside are zeros."""
    return _sample(image, *_positions(flow), "bilinear")


@torch.no_grad()
def nearest4_warp(
    image: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"]
) -> Float[Tensor, "n c4 h w"]:
    """Sample the four pixels around where the flow points."""
    x, y = _positions(flow)
    corners = [(px, py) for px in (x.floor(), x.ceil()) for py in (y.floor(), y.ceil())]
    return torch.cat([_sample(image, px, py, "nearest") for px, py in corners], dim=1)


def _positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    return x + flow[:, 0], y + flow[:, 1]


def _sample(image: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    height, width = image.shape[-2:]
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    return F.grid_sample(image, grid.to(image.dtype), mode, "zeros", align_corners=True)


def aligned_neighbours(
    module: DeformableAlignment,
    frames: Float[Tensor, "b t c h w"],
    backward: Tensor,
    forward: Tensor,
) -> tuple[Tensor, Tensor]:
    """Align each frame's next and previous one to it, pair by pair; zeros where there is none."""
    nexts, previous = [], []
    for i in range(frames.shape[1] - 1):
        before, after = frames[:, i], frames[:, i + 1]
        nexts.append(align(module, after, before, backward[:, i]))
        previous.append(align(module, before, after, forward[:, i]))
    return (
        _with_zeros(torch.stack(nexts, dim=1), after=True),
        _with_zeros(torch.stack(previous, dim=1)),
    )


def align(
    module: DeformableAlignment,
    neighbour: Float[Tensor, "n c h w"],
    current: Float[Tensor, "n c h w"],
    flow: Float[Tensor, "n 2 h w"],
) -> Float[Tensor, "n c h w"]:
    """Align one neighbour by torchvision's modulated deformable convolution."""
    raw = module.conv_offset(torch.cat((flow_warp(neighbour, flow), current, flow), dim=1))
    first, second, mask = raw.chunk(3, dim=1)
    offset = module.max_residue * torch.tanh(torch.cat((first, second), dim=1))
    offset = offset + flow.flip(1).repeat(1, offset.shape[1] // 2, 1, 1)
    out: Tensor = deform_conv2d(
        neighbour, offset, module.weight, module.bias, padding=1, mask=mask.sigmoid()
    )
    return out


def temporal_attention(
    attention: TemporalAttention,
    query: Float[Tensor, "b t h w c"],
    source: Float[Tensor, "b s h w c"],
) -> Float[Tensor, "b t h w c"]:
    """Attend along time: one sequence for each pixel and head, scores and weights kept."""
    heads, keys = attention.heads, attention.kv(source).chunk(2, dim=-1)
    q, k, v = (
        rearrange(x, "b t h w (m d) -> b h w m t d", m=heads) for x in (attention.q(query), *keys)
    )
    score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if attention.slopes is not None:
        t, s = score.shape[-2:]
        instants = (torch.arange(s, device=q.device) + 0.5) * (t / s)
        distance = (torch.arange(t, device=q.device)[:, None] + 0.5 - instants).abs()
        score = score - attention.slopes[:, None, None] * distance
    out: Tensor = attention.proj(rearrange(score.softmax(-1) @ v, "b h w m t d -> b t h w (m d)"))
    return out
