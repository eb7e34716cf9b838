"""Trained models: a training run's folder, one file of weights, or a published checkpoint.

In: the name of weights that ship with the package (`vrtspike.weights`); a run folder with
`config.yaml` and `export/model.safetensors`, on this machine or fetched to it (`fetched`); an
export alone, which holds its configuration; or any file that `load_weights` reads, with the
configuration of its model. Out: the model, in evaluation mode, with that configuration; or a
`Restorer`, which also knows how the model wants its spikes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from einops import rearrange
from jaxtyping import UInt8
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from vrtspike.config.config import Config
from vrtspike.config.loader import load_config, load_saved
from vrtspike.config.model import ModelSettings
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError, one_line
from vrtspike.metrics.image import to_uint8
from vrtspike.model import build_model
from vrtspike.model.guess import GuessAlone
from vrtspike.model.guided_vrt import GuidedVRT
from vrtspike.model.weights import load_weights
from vrtspike.restoration.arrays import checked_frames, checked_spikes, checked_threshold
from vrtspike.restoration.tiled import restore, unit_of
from vrtspike.runs.paths import CONFIG, EXPORT, METRICS
from vrtspike.spikes.representation import SpikeRepresentation
from vrtspike.spikes.timeline import Timeline
from vrtspike.storage.folder import Folder
from vrtspike.storage.yaml_text import parse_yaml
from vrtspike.weights import or_by_name, packaged


@dataclass(frozen=True, eq=False)
class Restorer:
    """A model, and what it sees of the spikes (None: it takes none)."""

    model: nn.Module
    spikes: SpikeRepresentation | None = None
    settings: ModelSettings | None = None
    """What the model was built from; None: not known."""

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        config: Path | None = None,
    ) -> Restorer:
        """Load packaged weights by name, a run folder, an export, or other weights with their
        configuration.

        Of a text that is a name, such as `small`, the packaged weights are meant; a `Path`, and a
        text such as `./small`, is always a place.
        """
        own = packaged(weights)
        model, found = load_run(own or Path(weights), config)
        spikes = SpikeRepresentation.of(found.model, found.data.voxels)
        return cls(model.to(device), spikes, found.model)

    @property
    def unit(self) -> int:
        """Return what the sides of tiles are multiples of."""
        return unit_of(self.model)

    @property
    def first_guess(self) -> Restorer | None:
        """Return the model's first guess as a model; None where it refines none."""
        if not isinstance(self.model, GuidedVRT):
            return None
        settings = self.settings and self.settings.model_copy(update={"trunk": False})
        return Restorer(GuessAlone(self.model.guess).eval(), self.spikes, settings)

    def __call__(
        self,
        blurred: Any,
        spikes: Any = None,
        *,
        threshold: float | None = None,
        exposure: tuple[int, int] | None = None,
        instant: int | None = None,
        **tiling: Any,
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """Restore frames in memory, `(t, h, w, 3)`: uint8, or floats in [0, 1]; NumPy or torch.

        `spikes` are the steps of each frame, of a camera with this `threshold`; `exposure` is the
        half-open interval of them over which the frame integrated (None: all), `instant` the step
        at whose beginning the restored frame is wanted, from the exposure's first to its end (None:
        the middle). The frames' steps follow one another without a gap. `tiling` are the keywords
        of `vrtspike.restoration.tiled`.
        """
        voxels, given = None, checked_frames(blurred)
        if self.spikes is None and instant is not None:
            raise ConfigError(
                "a model without spikes restores no instant of one's choice",
                got=f"instant {instant}",
                fix="leave it away, or load a model with spikes",
            )
        if self.spikes is not None:
            if spikes is None or threshold is None or len(spikes) != len(given):
                raise DataFormatError(
                    "this model restores frames with their spikes",
                    got="no spikes" if spikes is None else f"{len(spikes)} frames of spikes",
                    expected=f"spikes of {len(given)} frames, and the camera's threshold",
                )
            size = (given.shape[1], given.shape[2])
            fired = checked_spikes(spikes, len(given), size)
            steps = fired.shape[1]
            first, last = exposure or (0, steps)
            middle = (first + last) // 2
            target = middle if instant is None else instant
            timeline = Timeline(steps, (first, last), target)
            voxels = torch.from_numpy(self.spikes(fired, timeline, checked_threshold(threshold)))
        frames = rearrange(given, "t h w c -> t c h w")
        restored = to_uint8(restore(self.model, frames, voxels, **tiling))
        return np.ascontiguousarray(rearrange(restored, "t c h w -> t h w c").numpy())


@contextmanager
def fetched(run: Folder) -> Iterator[Path]:
    """Give a run folder on this machine: the run's own, or a copy for a while of what is read."""
    names = (CONFIG, EXPORT, METRICS)
    if run.remote and run.size(CONFIG) is None:
        raise CheckpointError(f"the run has no {CONFIG}", where=run, fix="correct the URI")
    with run.local([name for name in names if run.size(name) is not None]) as path:
        yield path


def load_run(weights: Path, config: Path | None = None) -> tuple[nn.Module, Config]:
    """Build a model with its weights; return it with its configuration.

    `weights` is a run folder or a file; `config` is needed for files that hold no configuration.
    """
    file = weights_file(weights)
    if config is not None:
        found = load_config(config)
    elif file != weights:
        found = load_saved(weights / CONFIG)
    else:
        found = _own_config(file)
    if found.train.task != "restore":
        raise CheckpointError(
            "these weights restore nothing",
            where=file,
            got=f"train.task {found.train.task}",
            fix=or_by_name("start training from them (train.init_weights)", models=True),
        )
    model = build_model(found.model)
    report = load_weights(model, file.absolute())  # a place, whatever it is called
    if report.missing or report.adapted:
        raise CheckpointError(
            "the weights are not those of the configuration",
            where=file,
            got=str(report),
            expected="every tensor taken as it is",
        )
    return model.eval(), found


def weights_file(weights: Path) -> Path:
    """Return the file that holds the weights: this one, or a run folder's export."""
    if weights.is_file():
        return weights
    if not weights.is_dir():
        raise CheckpointError(
            "no such run folder or weights",
            where=weights,
            fix=or_by_name("train first, correct the path", models=True),
        )
    for name in (CONFIG, EXPORT):
        if not (weights / name).is_file():
            raise CheckpointError(
                f"the run has no {name}",
                where=weights,
                expected=f"{CONFIG} and {EXPORT}, which training writes at its end",
                fix="let the run finish: start the same training again and it continues",
            )
    return weights / EXPORT


def _own_config(file: Path) -> Config:
    """Return the configuration that an export holds."""
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {})["config"]
    except (OSError, KeyError, SafetensorError):
        raise CheckpointError(
            "the file does not say what model its weights are of",
            where=file,
            expected="a run folder, or an export of vrtspike",
            fix="give the model's configuration with --config, such as "
            "configs/model/vrt_deblur.yaml for published VRT weights",
        ) from None
    try:
        return Config.model_validate(parse_yaml(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise CheckpointError(
            "the configuration in the weights is not one of this version",
            where=file,
            got=one_line(error, 200),
            fix="export them again with the version of vrtspike that trained them",
        ) from None
