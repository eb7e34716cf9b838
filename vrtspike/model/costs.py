"""Measure what a model costs: parameters, operations, shapes, and the memory of a training step.

In: the settings of a model and the size of a clip. Out: `Costs`. We run one forward and one
backward pass of a small clip on the device, count every operation, and follow every tensor from its
allocation to its release. So we measure what autograd and our own functions keep.

The counts grow in proportion to the pixels and the batch, because windows attend only within
themselves. We scale them to the clip that was asked for. Tensors made from the weights alone do not
grow. Buffers of a fixed size (some MiB) are scaled too, so a model with few channels is
overestimated.

Operations are the floating-point operations of a forward pass in matrix products and convolutions;
a multiply-add counts as two. Memory is in bytes, as allocated; the workspace that a library uses
inside one call is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vrtspike.config.choices import Precision
from vrtspike.config.model import ModelSettings
from vrtspike.model.build import build_model
from vrtspike.model.early_fusion import EarlyFusionVRT
from vrtspike.model.grid import padding_to_unit
from vrtspike.model.guess import FirstGuess
from vrtspike.model.precision import autocast
from vrtspike.model.recompute import as_if_larger
from vrtspike.model.spike_vrt import SpikeVRT
from vrtspike.model.vrt import VRT

TILE = 32
"""Side of the small clip in tokens; the flow network pads smaller clips to this size."""
MAP_BLOCKS = "MALLOC_MMAP_THRESHOLD_"
"""On a CPU a process uses more memory than its live tensors: blocks are freed in another order than
they are allocated, and glibc's heap keeps the gaps. If this environment variable is 1048576, large
blocks leave no gaps, but each needs new pages; THP_MEM_ALLOC_ENABLE=1 makes these pages fewer."""


@dataclass(frozen=True)
class Clip:
    """The size of a model's input."""

    batch: int
    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Part:
    """The costs of one part of a model, without the parts that it calls."""

    name: str
    spike: bool
    """Whether the part belongs to the spike branch."""
    shape: tuple[int, ...]
    """Shape of its output; of the finest one, if the output is a list."""
    parameters: int
    flops: int
    kept: int
    """Bytes that it adds to live memory: its output and what the backward pass needs."""


@dataclass(frozen=True)
class Costs:
    """The costs of one forward and backward pass."""

    parts: tuple[Part, ...]
    activations: int
    """Peak of live bytes, without the weights and their gradients."""

    @property
    def parameters(self) -> int:
        """Return the number of parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int:
        """Return the floating-point operations of a forward pass."""
        return sum(part.flops for part in self.parts)

    def spike_share(self, of: Literal["parameters", "flops", "kept"]) -> float:
        """Return the fraction of the whole model's total that the spike branch takes, 0 to 1."""
        values = [(getattr(part, of), part.spike) for part in self.parts]
        return float(sum(v for v, spike in values if spike) / max(1, sum(v for v, _ in values)))


def measure_costs(
    settings: ModelSettings,
    clip: Clip,
    *,
    device: torch.device,
    precision: Precision,
    backward: bool = True,
) -> Costs:
    """Measure a pass of a small clip on `device`, and return the costs of `clip`.

    Without `backward`, return the costs of restoring: nothing is kept for a backward pass.
    """
    model = build_model(settings).to(device).train(backward)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    tile, unit = TILE * settings.patch, cast("int", model.unit)
    small = Clip(1, clip.frames, min(tile, clip.height), min(tile, clip.width))
    blurred, voxels = random_clip(settings, small, device)
    grow_h, grow_w = (
        _padded(whole, unit) / _padded(part, unit)
        for whole, part in ((clip.height, small.height), (clip.width, small.width))
    )
    counter = _CostCounter(model)
    with (
        counter,
        _measured_parts(model, counter) as measured,
        torch.set_grad_enabled(backward),
        as_if_larger(clip.batch * grow_h * grow_w),
    ):
        with autocast(device, precision):
            restored = model(blurred, voxels)
        if backward:
            (restored.float() - blurred).square().mean().backward()
    parts = tuple(_scaled(part, clip.batch, grow_h, grow_w) for part in measured)
    return Costs(
        parts, round(counter.activations.peak * clip.batch * grow_h * grow_w) + counter.derived.peak
    )


def random_clip(
    settings: ModelSettings, clip: Clip, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return frames `(b, t, 3, h, w)` and, for a fused model, voxels `(b, t, k, h, w)`."""
    shape, size = (clip.batch, clip.frames), (clip.height, clip.width)
    blurred = torch.rand(*shape, 3, *size, device=device)
    if settings.fusion == "none":
        return blurred, None
    return blurred, torch.rand(*shape, settings.spike.channels, *size, device=device)


@dataclass
class _Tally:
    """Live bytes, and their peak."""

    live: int = 0
    peak: int = 0


class _CostCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count operations, and the bytes of every storage from its allocation to its release."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.activations, self.derived = _Tally(), _Tally()
        weights = [*model.parameters(), *model.buffers()]
        self._weights = {_key(tensor) for tensor in weights}
        gradients = (p.grad for p in model.parameters() if p.grad is not None)
        self._known = self._weights | {_key(tensor) for tensor in gradients}
        self._ends: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        elif func.name() == "torchvision::deform_conv2d":
            self.flops += 2 * out.numel() * args[1][0].numel()
        new = [tensor for tensor in _tensors((out,)) if _key(tensor) not in self._known]
        if new:
            sources = [_key(x) for x in _tensors(args) if x.is_floating_point()]
            is_derived = bool(sources) and self._weights.issuperset(sources)
            for tensor in new:
                self._follow(tensor.untyped_storage(), is_derived)
        return out

    def _follow(self, storage: torch.UntypedStorage, is_derived: bool) -> None:
        """Count a new storage until its release, under `derived` if made from weights alone."""
        key, size = storage._cdata, storage.nbytes()
        tally = self.derived if is_derived else self.activations
        if is_derived:
            self._weights.add(key)

        def release(_: object) -> None:
            self._known.discard(key)
            self._weights.discard(key)
            del self._ends[key]
            tally.live -= size

        self._known.add(key)
        self._ends[key] = weakref.ref(storage, release)
        tally.live += size
        tally.peak = max(tally.peak, tally.live)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or results of an operation, also from lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


@dataclass
class _RunningPart:
    """Counts at the start of a part that is running, and the costs of the parts that it called."""

    flops: int
    live: int
    inner_flops: int = 0
    inner_live: int = 0


@contextmanager
def _measured_parts(model: nn.Module, counter: _CostCounter) -> Iterator[list[Part]]:
    """Yield a list to which each part of the model is appended when it ends."""
    parts: list[Part] = []
    running = [_RunningPart(0, 0)]

    def enter(*_: object) -> None:
        running.append(_RunningPart(counter.flops, counter.activations.live))

    def leave(
        name: str, spike: bool, module: nn.Module, _: object, out: Tensor | Sequence[Tensor]
    ) -> None:
        count, caller = running.pop(), running[-1]
        flops, live = counter.flops - count.flops, counter.activations.live - count.live
        caller.inner_flops += flops
        caller.inner_live += live
        parts.append(
            Part(
                name,
                spike,
                _shape(module, out if isinstance(out, Tensor) else out[0]),
                sum(p.numel() for p in module.parameters()),
                flops - count.inner_flops,
                live - count.inner_live,
            )
        )

    hooks = []
    for name, module, spike in _parts(model):
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(partial(leave, name, spike)))
    try:
        yield parts
    finally:
        for hook in hooks:
            hook.remove()


def _parts(
    module: nn.Module, prefix: str = "", spike: bool = False
) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield name, module, and whether it belongs to the spike branch, for each part of a model.

    The parts are the model's children; lists and VRTs are replaced by their own children.
    """
    fused = isinstance(module, (SpikeVRT, EarlyFusionVRT))
    for name, child in module.named_children():
        branch = spike or (fused and not isinstance(child, VRT))
        if isinstance(child, (nn.ModuleList, VRT, SpikeVRT, EarlyFusionVRT)):
            yield from _parts(child, f"{prefix}{name}.", branch)
        else:
            yield prefix + name, child, branch


def _shape(module: nn.Module, out: Tensor) -> tuple[int, ...]:
    """Return the shape of a part's output, with rows and columns at axes 2 and 3."""
    if isinstance(module, FirstGuess):
        out = out.movedim(2, -1)
    return tuple(out.shape)


def _scaled(part: Part, batch: int, grow_h: float, grow_w: float) -> Part:
    """Scale the costs of a part to a larger clip.

    Features `(b, t, h, w, c)` and flows `(n, 2, h, w)` both have rows and columns at axes 2 and 3.
    """
    b, t, h, w, *rest = part.shape
    return replace(
        part,
        shape=(b * batch, t, round(h * grow_h), round(w * grow_w), *rest),
        flops=round(part.flops * batch * grow_h * grow_w),
        kept=round(part.kept * batch * grow_h * grow_w),
    )


def _padded(size: int, unit: int) -> int:
    """Return the size after padding to a multiple of `unit`."""
    return size + padding_to_unit(size, size, unit)[0]
