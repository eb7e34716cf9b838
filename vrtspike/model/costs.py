"""What a model costs: parameters, operations, shapes, and the memory of a training step.

In: a model's settings and the size of a clip. Out: `Costs`. One forward and one backward pass of a
small clip run on the device itself, while every operation is counted and every tensor is followed
from its allocation to its end. So what autograd and our own functions keep is seen, not assumed.
What is counted grows with the pixels and the batch (windows attend within themselves), which gives
the costs of the clip that was asked for; what is made from the weights alone does not grow. Buffers
of a fixed size (some MiB) are taken to grow, too: a model of a few channels is overestimated.

Operations are floating-point operations of a forward pass in products and convolutions, two for a
multiply-add. Memory is in bytes, as allocated: workspaces inside a library's call are not seen.
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
"""Side of the small clip, in tokens: the flow network pads smaller ones to it."""
MAP_BLOCKS = "MALLOC_MMAP_THRESHOLD_"
"""On a CPU a process takes more than what is alive: blocks are freed in another order than they are
taken, and glibc's heap keeps the holes. With this environment variable at 1048576 large blocks
leave none, at the price of new pages for each; THP_MEM_ALLOC_ENABLE=1 makes them fewer."""


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
    """One part of a model, without the parts that it calls."""

    name: str
    spike: bool
    """It belongs to the spike branch."""
    shape: tuple[int, ...]
    """Of what it hands on; of the finest, where that is a list."""
    parameters: int
    flops: int
    kept: int
    """Bytes alive after it ran that were not before: its output, and what backward needs."""


@dataclass(frozen=True)
class Costs:
    """What one forward and backward pass costs."""

    parts: tuple[Part, ...]
    activations: int
    """Greatest number of bytes alive at once, beside weights and their gradients."""

    @property
    def parameters(self) -> int:
        """Return the number of parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int:
        """Return the operations of a forward pass."""
        return sum(part.flops for part in self.parts)

    def spike_share(self, of: Literal["parameters", "flops", "kept"]) -> float:
        """Return the spike branch's fraction of a sum over all parts."""
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
    """Count a pass of a small clip on `device`; return the costs of `clip`.

    Without `backward` nothing is kept for it: the costs of restoring.
    """
    model = build_model(settings).to(device).train(backward)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    tile, unit = TILE * settings.patch, cast("int", model.unit)
    small = Clip(1, clip.frames, min(tile, clip.height), min(tile, clip.width))
    blurred, voxels = random_clip(settings, small, device)
    high, wide = (
        _padded(whole, unit) / _padded(part, unit)
        for whole, part in ((clip.height, small.height), (clip.width, small.width))
    )
    ledger = _Ledger(model)
    with (
        ledger,
        _watched_parts(model, ledger) as watched,
        torch.set_grad_enabled(backward),
        as_if_larger(clip.batch * high * wide),
    ):
        with autocast(device, precision):
            restored = model(blurred, voxels)
        if backward:
            (restored.float() - blurred).square().mean().backward()
    parts = tuple(_grown(part, clip.batch, high, wide) for part in watched)
    return Costs(
        parts, round(ledger.activations.peak * clip.batch * high * wide) + ledger.derived.peak
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
    """Bytes that are alive, and the most that ever were."""

    live: int = 0
    peak: int = 0


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count operations, and the bytes of every storage from its allocation to its end."""

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
        """Count a new storage until it ends; what is made from weights alone for itself."""
        key, size = storage._cdata, storage.nbytes()
        tally = self.derived if is_derived else self.activations
        if is_derived:
            self._weights.add(key)

        def end(_: object) -> None:
            self._known.discard(key)
            self._weights.discard(key)
            del self._ends[key]
            tally.live -= size

        self._known.add(key)
        self._ends[key] = weakref.ref(storage, end)
        tally.live += size
        tally.peak = max(tally.peak, tally.live)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among an operation's arguments or results, those in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


@dataclass
class _Count:
    """What a part that is running has come to; `inner` is what the parts that it called did."""

    flops: int
    live: int
    inner_flops: int = 0
    inner_live: int = 0


@contextmanager
def _watched_parts(model: nn.Module, ledger: _Ledger) -> Iterator[list[Part]]:
    """Yield a list that fills with the parts of a model in the order in which they end."""
    parts: list[Part] = []
    running = [_Count(0, 0)]

    def enter(*_: object) -> None:
        running.append(_Count(ledger.flops, ledger.activations.live))

    def leave(
        name: str, spike: bool, module: nn.Module, _: object, out: Tensor | Sequence[Tensor]
    ) -> None:
        count, caller = running.pop(), running[-1]
        flops, live = ledger.flops - count.flops, ledger.activations.live - count.live
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
    """Yield the parts of a model, and whether each belongs to the spike branch: its children, and
    those of lists and of the VRTs inside it."""
    fused = isinstance(module, (SpikeVRT, EarlyFusionVRT))
    for name, child in module.named_children():
        branch = spike or (fused and not isinstance(child, VRT))
        if isinstance(child, (nn.ModuleList, VRT, SpikeVRT, EarlyFusionVRT)):
            yield from _parts(child, f"{prefix}{name}.", branch)
        else:
            yield prefix + name, child, branch


def _shape(module: nn.Module, out: Tensor) -> tuple[int, ...]:
    """Return the shape of what a part hands on, with rows and columns as the third and fourth."""
    if isinstance(module, FirstGuess):
        out = out.movedim(2, -1)
    return tuple(out.shape)


def _grown(part: Part, batch: int, high: float, wide: float) -> Part:
    """Return the part of a larger clip.

    Features `(b, t, h, w, c)` and flows `(n, 2, h, w)` have rows and columns at the same axes.
    """
    b, t, h, w, *rest = part.shape
    return replace(
        part,
        shape=(b * batch, t, round(h * high), round(w * wide), *rest),
        flops=round(part.flops * batch * high * wide),
        kept=round(part.kept * batch * high * wide),
    )


def _padded(size: int, unit: int) -> int:
    """Return the size that the model works at."""
    return size + padding_to_unit(size, size, unit)[0]
