"""The model's fast paths against the naive reference: how much faster, and how much they differ.

In: settings of a model, the size of a clip. Out: a `Comparison` for each part of stage 1, at the
clip's full scale: what both take forward and backward, and the greatest difference of their results
and of their gradients with regard to the input.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from vrtspike.bench import naive
from vrtspike.config.model import ModelSettings
from vrtspike.model.build import build_model
from vrtspike.model.costs import Clip
from vrtspike.model.temporal import TemporalAttention
from vrtspike.model.vrt import VRT
from vrtspike.model.warp import nearest4_warp

Part = Callable[[Tensor], Tensor]
FLOW, WARP = "flow of all pairs", "nearest-4 warp"
ON_FRAMES = (FLOW, WARP)
"""Parts that take RGB frames `(b, t, h, w, 3)`; the others take features."""


@dataclass(frozen=True)
class Comparison:
    """One part, computed both ways; seconds are medians of forward and backward together."""

    part: str
    clip: Clip
    fast_s: float
    naive_s: float
    difference: float
    """Greatest absolute difference of the results."""
    gradient_difference: float
    """Greatest absolute difference of the input's gradients, over the greatest gradient."""

    @property
    def speedup(self) -> float:
        """Return how many times faster the fast path is."""
        return self.naive_s / self.fast_s


def compare_fast_paths(
    settings: ModelSettings, clip: Clip, device: torch.device, repeats: int
) -> list[Comparison]:
    """Compute each part both ways, in turns, in float32."""
    generator = torch.Generator().manual_seed(0)
    bare = {"fusion": "none", "guess": None, "trunk": True, "flow_from": "frames", "patch": 1}
    model = build_model(settings.model_copy(update=bare))
    assert isinstance(model, VRT)
    model = model.eval().to(device)
    shape = (clip.batch, clip.frames, clip.height, clip.width)
    feature = torch.randn(*shape, settings.channels, generator=generator).to(device)
    frames = torch.rand(*shape, 3, generator=generator).to(device)
    parts = _parts(model, settings, _flows(clip, generator).to(device))
    comparisons = []
    for name, fast, plain in parts:
        x = frames if name in ON_FRAMES else feature
        comparisons.append(_compare(name, clip, fast, plain, x, repeats))
    return comparisons


def _parts(model: VRT, settings: ModelSettings, flows: Tensor) -> Sequence[tuple[str, Part, Part]]:
    """Return the name of each part, and both ways to compute it."""
    stage = model.stages()[0]
    backward, forward = flows.chunk(2)
    time_attention = TemporalAttention(settings.channels, settings.spike.heads).to(flows.device)
    # Not the zeros that they start with: offsets should differ from the flow, if little.
    torch.nn.init.normal_(stage.pa_deform.conv_offset[-1].weight, std=1e-3)  # type: ignore[arg-type]

    def fast_flow(frames: Tensor) -> Tensor:
        return torch.cat(model._flows(_images(frames))[0])

    def naive_flow(frames: Tensor) -> Tensor:
        return torch.cat(naive.pair_flows(model.spynet, _images(frames))[0])

    def fast_warp(frames: Tensor) -> Tensor:
        images = _images(frames)
        neighbours = torch.cat((images[:, 1:], images[:, :-1]))
        return nearest4_warp(neighbours.flatten(0, 1), flows.flatten(0, 1))

    def naive_warp(frames: Tensor) -> Tensor:
        both = naive.each_pair(naive.nearest4_warp, _images(frames), backward, forward)
        return torch.cat(both).flatten(0, 1)

    def fast_alignment(x: Tensor) -> Tensor:
        return torch.cat(stage._align(x, (backward, forward)))

    def naive_alignment(x: Tensor) -> Tensor:
        both = naive.aligned_neighbours(stage.pa_deform, _images(x), backward, forward)
        return rearrange(torch.cat(both), "b t c h w -> b t h w c")

    groups = {"mutual attention": stage.residual_group1, "self attention": stage.residual_group2}
    return [
        *((name, group, partial(naive.block_group, group)) for name, group in groups.items()),
        ("alignment of all pairs", fast_alignment, naive_alignment),
        (FLOW, fast_flow, naive_flow),
        (WARP, fast_warp, naive_warp),
        (
            "attention along time",
            lambda x: time_attention(x, x),
            lambda x: naive.temporal_attention(time_attention, x, x),
        ),
    ]


def _compare(part: str, clip: Clip, fast: Part, plain: Part, x: Tensor, repeats: int) -> Comparison:
    """Compute a part both ways in turns; the first pass of each is not timed."""
    (out, grad), (expected, expected_grad) = _pass(fast, x)[:2], _pass(plain, x)[:2]
    seconds: dict[Part, list[float]] = {fast: [], plain: []}
    for _ in range(repeats):
        for way, taken in seconds.items():
            taken.append(_pass(way, x)[2])
    return Comparison(
        part,
        clip,
        statistics.median(seconds[fast]),
        statistics.median(seconds[plain]),
        (out - expected).abs().max().item(),
        ((grad - expected_grad).abs().max() / expected_grad.abs().max().clamp(min=1e-12)).item(),
    )


def _pass(part: Part, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return a part's result, the input's gradient of its mean square, and the seconds of both."""
    leaf = x.detach().requires_grad_()
    _synchronize(x.device)
    start = time.perf_counter()
    out = part(leaf)
    if out.requires_grad:  # the nearest-4 warp hands no gradient on
        out.square().mean().backward()  # type: ignore[no-untyped-call]
    _synchronize(x.device)
    seconds = time.perf_counter() - start
    return out.detach(), torch.zeros_like(x) if leaf.grad is None else leaf.grad, seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _images(x: Tensor) -> Tensor:
    return rearrange(x, "b t h w c -> b t c h w")


def _flows(clip: Clip, generator: torch.Generator) -> Tensor:
    """Return flows of all pairs, backward and forward, `(2b, t-1, 2, h, w)`.

    They point between pixels: where they hit one, slopes jump, and rounding decides which counts.
    """
    shape = (2 * clip.batch, clip.frames - 1, 2, clip.height, clip.width)
    whole = torch.randint(-4, 4, shape, generator=generator)
    return whole + 0.3 + 0.4 * torch.rand(shape, generator=generator)
