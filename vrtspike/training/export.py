"""The final weights of a run as one safetensors file, with its configuration in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from vrtspike.storage import write_atomically


def write_export(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write whole weights, or leave the file that was there."""
    content = save({k: v.contiguous() for k, v in weights.items()}, metadata=dict(metadata))
    write_atomically(path, content)
