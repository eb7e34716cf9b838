"""Read weights into a model: our safetensors exports, published VRT checkpoints, SpyNet files.

A published checkpoint is a state dict, bare or under the key `params`; its index and position
buffers are recomputed here and so dropped. For a fused model its names go under `vrt.`, and the
spike branch keeps its own initial values. No file is ever unpickled as code.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vrtspike.errors import CheckpointError
from vrtspike.model.spike_vrt import SpikeVRT
from vrtspike.model.vrt import DERIVED_BUFFERS

SPIKE_BRANCH = ("encoder.", "temporal.", "fusion.")


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file and of a model."""

    taken: tuple[str, ...]
    """Tensors of the model that the file gave."""
    missing: tuple[str, ...]
    """Tensors of the model that kept their initial values."""
    dropped: tuple[str, ...]
    """Buffers of the file that the model computes itself."""

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{len(self.taken)} tensors taken, {len(self.missing)} kept at their initial values, "
            f"{len(self.dropped)} computed buffers dropped"
        )


def load_weights(model: nn.Module, path: Path | str) -> LoadReport:
    """Load a file into a model, or raise CheckpointError and change nothing if it does not fit."""
    path = Path(path)
    state = _read(path)
    dropped = tuple(k for k in state if k.endswith(DERIVED_BUFFERS))
    state = _renamed({k: v for k, v in state.items() if k not in dropped}, model)
    own = model.state_dict()
    unexpected = [k for k in state if k not in own]
    if unexpected:
        raise CheckpointError(
            "the file holds tensors that the model does not have",
            where=path,
            got=_some(unexpected),
            expected=f"names such as {_some(list(own))}",
            fix="use the configuration that the weights were made with",
        )
    misfits = [
        f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}"
        for k, v in state.items()
        if v.shape != own[k].shape
    ]
    if misfits:
        raise CheckpointError(
            "tensors of the file do not have the model's shapes",
            where=path,
            got=_some(misfits),
            fix="use the configuration that the weights were made with",
        )
    missing = tuple(k for k in own if k not in state)
    whole_parts = all(k.startswith(SPIKE_BRANCH) for k in missing) or all(
        "spynet." in k for k in state
    )
    if not state or not whole_parts:
        raise CheckpointError(
            "the file holds only a part of the model's weights",
            where=path,
            got=f"{len(state)} of {len(own)} tensors; {_some(list(missing))} missing",
            expected="a whole model, a plain VRT for a fused one, or a flow network",
        )
    model.load_state_dict(state, strict=False)
    return LoadReport(tuple(state), missing, dropped)


def _read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file."""
    if not path.is_file():
        raise CheckpointError("no such weights file", where=path, fix="check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            "the weights cannot be read",
            where=path,
            got=str(error).splitlines()[0],
            expected="a .safetensors file or a state dict saved by torch",
        ) from error
    state = content.get("params", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            "the file holds no state dict",
            where=path,
            got=type(content).__name__,
            expected="tensors by name, bare or under the key `params`",
        )
    return state


def _renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Put the names of a flow network or of a plain VRT where the model has them."""
    if state and all(k.startswith("basic_module.") for k in state):
        state = {f"spynet.{k}": v for k, v in state.items()}
    if isinstance(model, SpikeVRT) and not any(k.startswith("vrt.") for k in state):
        state = {f"vrt.{k}": v for k, v in state.items()}
    return state


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
