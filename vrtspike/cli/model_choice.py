"""Choose the models and the datasets of an evaluation from the command's options.

In: names of packaged weights (`small`), run folders (path or URI), weight files, and dataset
folders. Out: the chosen models, and a configuration for each dataset by its name. `small` means the
packaged weights; write `./small` for a folder of that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vrtspike.config.config import Config
from vrtspike.config.loader import change
from vrtspike.errors import ConfigError
from vrtspike.report.methods import BASELINE, MAIN, PACKAGED, is_known
from vrtspike.runtime.ray_session import resolve_place
from vrtspike.storage.folder import Folder
from vrtspike.weights import DEFAULT, WITHOUT_SPIKES, packaged

NONE = "none"
"""The value of an option that means no model."""
DEFAULTS = {BASELINE: WITHOUT_SPIKES, MAIN: DEFAULT}
"""Packaged weights to use if no model is given."""


@dataclass(frozen=True)
class ModelChoice:
    """A model of an evaluation."""

    method: str
    """Its key in the results."""
    known_as: str
    """Its name for people, such as the path of its run."""
    place: Folder
    """Its run folder or weight file."""

    @property
    def is_run(self) -> bool:
        """Whether `place` is a run folder, not a weight file."""
        return self.place.remote or self.place.path.is_dir()


def choose_models(
    fused: str | None, baseline: str | None, beside: Sequence[str]
) -> tuple[ModelChoice, ...]:
    """Return the models of `--fused`, `--baseline` and `--beside`, the baseline first.

    If neither `fused` nor `baseline` is given, both are packaged weights. Raises ConfigError if a
    model is given twice.
    """
    given: Mapping[str, str | None] = {BASELINE: baseline, MAIN: fused}
    if fused is None and baseline is None:
        given = DEFAULTS
    chosen = [
        ModelChoice(role, *_weights(name))
        for role, name in given.items()
        if name is not None and name != NONE
    ]
    for name in beside:
        known_as, place = _weights(name)
        taken = [choice.method for choice in chosen]
        method = _method(known_as, taken)
        if method in taken:
            raise ConfigError("a model is named twice", where="--beside", got=known_as)
        chosen.append(ModelChoice(method, known_as, place))
    return tuple(chosen)


def datasets(settings: Config, sources: Sequence[str]) -> dict[str, Config]:
    """Return a configuration for each dataset in `sources`, by the name of its folder.

    Without sources, the dataset of the settings. Raises ConfigError if two names are equal.
    """
    places = [resolve_place(source) for source in sources] or [Folder.at(settings.data.source)]
    configs: dict[str, Config] = {}
    for place in places:
        name = file_name(PurePosixPath(str(place)).name)
        if name in configs:
            raise ConfigError(
                "two datasets have the same name",
                where="--source",
                got=name,
                fix="give each folder a name of its own: results are written to folders by it",
            )
        configs[name] = change(settings, {"data.source": place.where})
    return configs


def file_name(text: str) -> str:
    """Return a text as a name that is valid in paths and links."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "data"


def _weights(name: str) -> tuple[str, Folder]:
    """Return the display name and the folder or file of weights."""
    file = packaged(name)
    if file is not None:
        return name + PACKAGED, Folder(str(file))
    return str(Folder.at(name)), resolve_place(name)


def _method(known_as: str, taken: Sequence[str]) -> str:
    """Return a method key that is not taken: the last part of a path, or else the whole path."""
    last = PurePosixPath(known_as).name
    return known_as if last in taken or is_known(last) or not last else last
