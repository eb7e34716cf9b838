"""Load weights into a model: our safetensors exports (packaged ones by name), published VRT
checkpoints, and SpyNet files.

A published checkpoint is a state dict, either bare or under one of `KEYS`; its names may have one
of `PREFIXES`. We skip its index and
position buffers, because the model computes them. A file may hold only one part of the model: the
first guess, the transformer after it, the plain VRT inside that, or the flow network. It is loaded
into that part, and the rest of the model keeps its initial values. Input channels and the attention
window may differ from the model's if `vrtspike.model.adaptation` can convert them. Anything else
raises CheckpointError. Loading never runs code from a pickle.
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
"""Prefixes of the first guess and of the transformer in the names of a guided model."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a file were loaded, and which tensors of the model were not."""

    taken: tuple[str, ...]
    """Tensors of the model that were loaded unchanged."""
    adapted: Mapping[str, str]
    """Tensors of the model that were converted from another shape, each with a description."""
    missing: tuple[str, ...]
    """Tensors of the model that the file lacks; they kept their initial values."""
    unexpected: tuple[str, ...]
    """Tensors of the file that were skipped: buffers that the model computes itself."""

    def __str__(self) -> str:
        """Return the counts in one line, with the names of all but the unchanged tensors."""
        parts = [f"{len(self.taken)} tensors taken"]
        for change in dict.fromkeys(self.adapted.values()):
            names = [name for name, own_change in self.adapted.items() if own_change == change]
            parts.append(f"{len(names)} adapted, {change} ({_first_names(names)})")
        for what, listed in (
            ("missing, kept at their initial values", self.missing),
            ("unexpected, computed by the model itself", self.unexpected),
        ):
            parts.append(f"{len(listed)} {what}" + (f" ({_first_names(listed)})" if listed else ""))
        return "; ".join(parts)


def load_weights(model: nn.Module, weights: Path | str) -> LoadReport:
    """Load a weights file, or packaged weights by name, into a model.

    Raise CheckpointError, and leave the model unchanged, if the weights do not fit.
    """
    loaded, report = _matched(model, weights)
    model.load_state_dict(loaded, strict=False)
    return report


def check_weights(model: nn.Module, weights: Path | str) -> LoadReport:
    """Raise the errors of `load_weights` without loading; the model may be on the meta device."""
    return _matched(model, weights)[1]


def _matched(model: nn.Module, weights: Path | str) -> tuple[State, LoadReport]:
    """Return the tensors of a file under the model's names and in its shapes, and the report."""
    path = packaged(weights) or Path(weights)
    own = model.state_dict()
    content = _without_prefixes(read_state(path), own)
    prefixes = _prefixes(own)
    unexpected = tuple(k for k in content if k.endswith(DERIVED_BUFFERS))
    content = {k: v for k, v in content.items() if k not in unexpected}
    prefix = max(prefixes, key=lambda prefix: sum(f"{prefix}{k}" in own for k in content))
    loaded = {f"{prefix}{k}": v for k, v in content.items()}
    _refuse_other_names(loaded, own, prefixes, path)
    adapted = _adapt(loaded, model, own)
    _refuse_other_shapes(loaded, own, path)
    report = LoadReport(
        taken=tuple(k for k in loaded if k not in adapted),
        adapted=adapted,
        missing=tuple(k for k in own if k not in loaded),
        unexpected=unexpected,
    )
    return loaded, report


def read_state(path: Path) -> State:
    """Read the tensors of a .safetensors file or a torch state dict, by name.

    Raise CheckpointError if the file does not exist, is damaged, or holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError("no such weights file", where=path, fix="check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        # We replace torch's message, because it advises to let the file run code.
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


def _prefixes(own: State) -> tuple[str, ...]:
    """Return the prefixes of the model's names: "" for the whole model, then one for each part."""
    flow = next((k[: k.index("basic_module.")] for k in own if "basic_module." in k), "")
    parts = [part for part in PARTS if any(k.startswith(part) for k in own)]
    return tuple(dict.fromkeys(["", *parts, flow.removesuffix("spynet."), flow]))


def _refuse_other_names(loaded: State, own: State, prefixes: tuple[str, ...], path: Path) -> None:
    """Refuse names that the model lacks, and a file that is neither whole nor exactly one part."""
    unknown = [k for k in loaded if k not in own]
    if unknown:
        raise CheckpointError(
            "the file holds tensors that the model does not have",
            where=path,
            got=_first_names([f"{k} {tuple(loaded[k].shape)}" for k in unknown]),
            expected=f"names such as {_first_names(list(own))}",
            fix="use the configuration that the weights were made with",
        )
    # A file with only a flow network lacks its constants.
    named = {k for k in own if not k.endswith(FLOW_CONSTANTS)}
    parts = [{k for k in named if k.startswith(prefix)} for prefix in prefixes]
    if loaded.keys() & named not in parts:
        missing = [f"{k} {tuple(v.shape)}" for k, v in own.items() if k not in loaded]
        raise CheckpointError(
            "the file holds only a part of the model's weights",
            where=path,
            got=f"{len(loaded)} of {len(own)} tensors; {_first_names(missing)} missing",
            expected="a whole model, its first guess, a VRT or a flow network",
        )


def _refuse_other_shapes(loaded: State, own: State, path: Path) -> None:
    """Refuse tensors that do not have the model's shapes."""
    misfits = [
        f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}"
        for k, v in loaded.items()
        if v.shape != own[k].shape
    ]
    if misfits:
        raise CheckpointError(
            "tensors of the file do not have the model's shapes",
            where=path,
            got=_first_names(misfits),
            fix="use the configuration that the weights were made with",
        )


def _adapt(loaded: State, model: nn.Module, own: State) -> dict[str, str]:
    """Convert, in `loaded`, tensors for other input channels or another window.

    Return a description of each conversion, by name.
    """
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
    tables = {k: loaded[k] for k in windows if k in loaded and loaded[k].ndim == 2}
    # Windows of mutual attention always have two frames, so three offsets in time.
    rows_in_space = next((len(v) // 3 for k, v in tables.items() if "residual_group1" in k), 0)
    changes = {}
    for key in [k for k, v in loaded.items() if v.shape != own[k].shape]:
        converted = None
        if key in inputs:
            converted = with_more_inputs(loaded[key], own[key].shape[1])
        elif key in tables and rows_in_space:
            converted = for_window(tables[key], rows_in_space, windows[key])
        if converted is not None and converted[0].shape == own[key].shape:
            loaded[key], changes[key] = converted
    return changes


def _first_names(names: Collection[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more
