"""Export weights as one safetensors file, with the configuration in its metadata.

In: the full (unsharded) weights of a model, or a checkpoint. Out: a file that
`vrtspike.model.load_weights` reads; its metadata are `config` (YAML) and `step`.
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
"""Pause between a failed attempt to write the weights and the next one."""


def write_export(
    folder: Folder, name: str, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write full weights to the file `name`; on this machine, a failure keeps the old file."""
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
    """Write full weights; if storage is full or unavailable, try again for `timeout_s`.

    `failing` is called with the error of each failed attempt. Raises DataFormatError after the
    timeout.
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
    """Return the metadata of an export."""
    return {"config": dump_config(config), "step": str(step)}


def exported_step(folder: Folder, name: str) -> int | None:
    """Return the step of exported weights; None if the file does not exist or is not ours."""
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
    """Read the weights of a checkpoint, by name; also return the metadata of their export.

    `kind` default: averaged weights if the checkpoint has them, otherwise raw ones. Raises
    CheckpointError if averaged weights are requested and it has none, or if its configuration is
    not of this version.
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
