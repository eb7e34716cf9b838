"""Read weights into a model: our safetensors exports (packaged ones by name), published VRT
checkpoints, SpyNet files.

A published checkpoint is a state dict, bare or under one of `KEYS`, its names with `PREFIXES` or
without. Its index and position buffers are not read: the model computes them. A file may hold a
part of the model instead of the whole: the first guess, the transformer behind it, the plain VRT in
that, its flow network. Its names go where the model has the part, and the rest keeps its initial
values. Input channels and the attention window may differ from the model's as far as
`vrtspike.model.adaptation` can fit them.
Everything else is refused. No file is ever unpickled as code.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vrtspike.errors import CheckpointError
from vrtspike.model.adaptation import for_window, with_more_inputs
from vrtspike.model.attention import WindowAttention
from vrtspike.model.vrt import DERIVED_BUFFERS, VRT
from vrtspike.weights import packaged

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
KEYS = (
    *("params_ema", "ema", "ema_state_dict", "model_ema", "params", "state_dict"),
    *("model_state_dict", "model", "netG", "net", "network", "generator", "weights"),
)
"""Where training programs put a state dict; an average over steps goes before the last step's."""
PREFIXES = ("module.", "_orig_mod.", "generator.", "model.", "netG.", "net.", "network.")
"""What wrappers of a model put before all names."""
FLOW_CONSTANTS = ("spynet.mean", "spynet.std")
PARTS = ("guess.", "trunk.")
"""Where a guided model has its first guess and its transformer."""


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file and of a model."""

    taken: tuple[str, ...]
    """Tensors of the model that the file gave as they are."""
    adapted: Mapping[str, str]
    """Tensors of the model that the file gave in another shape, and what was done to each."""
    missing: tuple[str, ...]
    """Tensors of the model that kept their initial values."""
    unexpected: tuple[str, ...]
    """Tensors of the file that the model has no use for: buffers that it computes itself."""

    def __str__(self) -> str:
        """Say it in one line, with the names of what was not simply taken."""
        parts = [f"{len(self.taken)} tensors taken"]
        for how in dict.fromkeys(self.adapted.values()):
            names = [name for name, done in self.adapted.items() if done == how]
            parts.append(f"{len(names)} adapted, {how} ({_some(names)})")
        for what, found in (
            ("missing, kept at their initial values", self.missing),
            ("unexpected, computed by the model itself", self.unexpected),
        ):
            parts.append(f"{len(found)} {what}" + (f" ({_some(found)})" if found else ""))
        return "; ".join(parts)


def load_weights(model: nn.Module, weights: Path | str) -> LoadReport:
    """Load a file, or packaged weights by name, into a model, or raise CheckpointError and change
    nothing if they do not fit."""
    given, report = _fitted(model, weights)
    model.load_state_dict(given, strict=False)
    return report


def check_weights(model: nn.Module, weights: Path | str) -> LoadReport:
    """Raise the errors of `load_weights` without loading; the model may be one without memory."""
    return _fitted(model, weights)[1]


def _fitted(model: nn.Module, weights: Path | str) -> tuple[State, LoadReport]:
    """Return what a model takes of a file, under its names and in its shapes."""
    path = packaged(weights) or Path(weights)
    own = model.state_dict()
    content = _without_prefixes(read_state(path), own)
    places = _places(own)
    unexpected = tuple(k for k in content if k.endswith(DERIVED_BUFFERS))
    content = {k: v for k, v in content.items() if k not in unexpected}
    place = max(places, key=lambda place: sum(f"{place}{k}" in own for k in content))
    given = {f"{place}{k}": v for k, v in content.items()}
    _refuse_other_names(given, own, places, path)
    adapted = _adapt(given, model, own)
    _refuse_other_shapes(given, own, path)
    report = LoadReport(
        taken=tuple(k for k in given if k not in adapted),
        adapted=adapted,
        missing=tuple(k for k in own if k not in given),
        unexpected=unexpected,
    )
    return given, report


def read_state(path: Path) -> State:
    """Read the tensors of a file."""
    if not path.is_file():
        raise CheckpointError("no such weights file", where=path, fix="check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        # torch's own text on this advises to let the file run code.
        unsafe = isinstance(error, UnpicklingError)
        raise CheckpointError(
            "the weights cannot be read",
            where=path,
            got="a file that is no state dict"
            if unsafe
            else " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]]),
            expected="a .safetensors file or a state dict saved by torch",
        ) from error
    state, key = _state_in(content)
    if key is not None:
        others = [k for k in content if k in KEYS and k != key]
        logger.log(
            logging.WARNING if others else logging.INFO,
            "%s: took the weights under the key %s%s",
            *(path, key, f" and not those under {', '.join(others)}" if others else ""),
        )
    if state is None:
        raise CheckpointError(
            "the file holds no state dict",
            where=path,
            got=type(content).__name__,
            expected=f"tensors by name, bare or under one of the keys {', '.join(KEYS)}",
            fix="save the state dict alone: torch.save(model.state_dict(), FILE)",
        )
    return state


def _state_in(content: Any, depth: int = 2) -> tuple[State | None, str | None]:
    """Return the state dict in a file's content, and the key that it lies under, if any."""
    if not isinstance(content, dict):
        return None, None
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return content, None
    for key in KEYS if depth else ():
        state, inner = _state_in(content.get(key), depth - 1)
        if state is not None:
            return state, f"{key}.{inner}" if inner else key
    return None, None


def _without_prefixes(content: State, own: State) -> State:
    """Return tensors by names without what wrappers of a model put before all of them."""
    while content and not any(name in own for name in content):
        prefix = next((p for p in PREFIXES if all(k.startswith(p) for k in content)), None)
        if prefix is None:
            break
        content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return content


def _places(own: State) -> tuple[str, ...]:
    """Return what the names of a whole model and of each of its parts begin with in the model."""
    flow = next((k[: k.index("basic_module.")] for k in own if "basic_module." in k), "")
    found = [part for part in PARTS if any(k.startswith(part) for k in own)]
    return tuple(dict.fromkeys(["", *found, flow.removesuffix("spynet."), flow]))


def _refuse_other_names(given: State, own: State, places: tuple[str, ...], path: Path) -> None:
    """Refuse names that the model lacks, and anything but the whole model or one of its parts."""
    unknown = [k for k in given if k not in own]
    if unknown:
        raise CheckpointError(
            "the file holds tensors that the model does not have",
            where=path,
            got=_some([f"{k} {tuple(given[k].shape)}" for k in unknown]),
            expected=f"names such as {_some(list(own))}",
            fix="use the configuration that the weights were made with",
        )
    # A flow network's own file lacks its constants.
    named = {k for k in own if not k.endswith(FLOW_CONSTANTS)}
    parts = [{k for k in named if k.startswith(place)} for place in places]
    if given.keys() & named not in parts:
        missing = [f"{k} {tuple(v.shape)}" for k, v in own.items() if k not in given]
        raise CheckpointError(
            "the file holds only a part of the model's weights",
            where=path,
            got=f"{len(given)} of {len(own)} tensors; {_some(missing)} missing",
            expected="a whole model, its first guess, a VRT or a flow network",
        )


def _refuse_other_shapes(given: State, own: State, path: Path) -> None:
    """Refuse tensors that do not have the model's shapes."""
    misfits = [
        f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}"
        for k, v in given.items()
        if v.shape != own[k].shape
    ]
    if misfits:
        raise CheckpointError(
            "tensors of the file do not have the model's shapes",
            where=path,
            got=_some(misfits),
            fix="use the configuration that the weights were made with",
        )


def _adapt(given: State, model: nn.Module, own: State) -> dict[str, str]:
    """Fit what comes from other input channels or another window; return what was done to each."""
    inputs = {
        f"{name}.conv_first.weight".lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, VRT)
    }
    windows = {
        f"{name}.relative_position_bias_table": module.window
        for name, module in model.named_modules()
        if isinstance(module, WindowAttention)
    }
    tables = {k: given[k] for k in windows if k in given and given[k].ndim == 2}
    # Mutual attention always has windows of two frames: three offsets in time.
    rows_in_space = next((len(v) // 3 for k, v in tables.items() if "residual_group1" in k), 0)
    done = {}
    for key in [k for k, v in given.items() if v.shape != own[k].shape]:
        fitted = None
        if key in inputs:
            fitted = with_more_inputs(given[key], own[key].shape[1])
        elif key in tables and rows_in_space:
            fitted = for_window(tables[key], rows_in_space, windows[key])
        if fitted is not None and fitted[0].shape == own[key].shape:
            given[key], done[key] = fitted
    return done


def _some(names: Collection[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more
