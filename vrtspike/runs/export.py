"""Weights as one safetensors file, with the configuration in the metadata.

In: whole weights, of a model or of a checkpoint. Out: a file that `vrtspike.model.load_weights`
reads; its metadata are `config` (YAML) and `step`.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from vrtspike.checkpoints.manifest import Checkpoint
from vrtspike.checkpoints.read_write import empty_tensors, load
from vrtspike.config.config import Config
from vrtspike.config.loader import dump_config
from vrtspike.errors import CheckpointError, DataFormatError, one_line
from vrtspike.storage.folder import Folder

Weights = Literal["averaged", "raw"]

PAUSE_S = 10.0
"""How long after storage did not take the weights they are written again."""


def write_export(
    folder: Folder, name: str, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write whole weights, or leave the file that was there (on this machine)."""
    content = save({k: v.contiguous() for k, v in weights.items()}, metadata=dict(metadata))
    folder.write(name, content)


def write_export_surely(
    folder: Folder,
    name: str,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    timeout_s: float,
    failing: Callable[[DataFormatError], None],
) -> None:
    """Write whole weights; try again for `timeout_s` while storage is full or away.

    `failing` is told of each attempt that failed.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            return write_export(folder, name, weights, metadata)
        except DataFormatError as error:
            if time.monotonic() > until:
                raise
            failing(error)
            time.sleep(PAUSE_S)


def export_metadata(config: Config, step: int) -> dict[str, str]:
    """Return what an export tells of itself."""
    return {"config": dump_config(config), "step": str(step)}


def exported_step(folder: Folder, name: str) -> int | None:
    """Return the step of the weights in an export, or None where there is none of ours."""
    if folder.size(name) is None:
        return None
    try:
        with folder.open(name) as file:
            length = struct.unpack("<Q", file.read(8))[0]
            return int(json.loads(file.read(length))["__metadata__"]["step"])
    except (ValueError, KeyError, TypeError, struct.error):
        return None


def weights_of_checkpoint(
    saved: Checkpoint, kind: Weights | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the weights of a checkpoint, and the metadata of their export.

    Without `kind` averages where it has them. Raises CheckpointError where it has none.
    """
    averages = empty_tensors(saved, "average/") if kind != "raw" else {}
    if kind == "averaged" and not averages:
        raise CheckpointError(
            "the checkpoint has no averaged weights",
            where=saved.folder,
            expected="a run with train.ema",
            fix="export its weights with --weights raw",
        )
    try:
        config = Config.model_validate(saved.facts["config"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            "the configuration in the checkpoint is not one of this version",
            where=saved.folder,
            got=one_line(error, 200),
            fix="export with the version of vrtspike that trained it",
        ) from None
    state = empty_tensors(saved, "model/") | averages
    load(saved, state)
    weights = {
        name: state.get(f"average/{name}", value)
        for key, value in state.items()
        if (name := key.removeprefix("model/")) != key
    }
    return weights, export_metadata(config, saved.step)
