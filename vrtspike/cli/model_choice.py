"""Which models an evaluation compares, and on which datasets, as options name them.

In: names of packaged weights (`small`), run folders (path or URI), files of weights, and dataset
folders. Out: the chosen models, each with the method that it is in the results and what it is
called, and configurations by the name of their dataset. A name of packaged weights is taken as
such; a folder of the same name is `./small`.
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
"""Given for a model: there is none."""
DEFAULTS = {BASELINE: WITHOUT_SPIKES, MAIN: DEFAULT}
"""Packaged weights that are taken where no model is given."""


@dataclass(frozen=True)
class ModelChoice:
    """A model: its method in the results, its name there, and where its weights are."""

    method: str
    known_as: str
    place: Folder

    @property
    def is_run(self) -> bool:
        """Tell whether it is a run's folder, which may hold a report, and not a file."""
        return self.place.remote or self.place.path.is_dir()


def choose_models(
    fused: str | None, baseline: str | None, beside: Sequence[str]
) -> tuple[ModelChoice, ...]:
    """Return the models that options name, the baseline first; without: the packaged ones."""
    given: Mapping[str, str | None] = {BASELINE: baseline, MAIN: fused}
    if fused is None and baseline is None:
        given = DEFAULTS
    found = [
        ModelChoice(role, *_weights(name))
        for role, name in given.items()
        if name is not None and name != NONE
    ]
    for name in beside:
        known_as, place = _weights(name)
        taken = [contender.method for contender in found]
        method = _method(known_as, taken)
        if method in taken:
            raise ConfigError("a model is named twice", where="--beside", got=known_as)
        found.append(ModelChoice(method, known_as, place))
    return tuple(found)


def datasets(settings: Config, sources: Sequence[str]) -> dict[str, Config]:
    """Return the configuration of each dataset by its folder's name; without: the settings' own."""
    places = [resolve_place(source) for source in sources] or [Folder.at(settings.data.source)]
    found: dict[str, Config] = {}
    for place in places:
        name = file_name(PurePosixPath(str(place)).name)
        if name in found:
            raise ConfigError(
                "two datasets have the same name",
                where="--source",
                got=name,
                fix="give each folder a name of its own: results are written to folders by it",
            )
        found[name] = change(settings, {"data.source": place.where})
    return found


def file_name(text: str) -> str:
    """Return a name as one that a file and a link can have."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "data"


def _weights(name: str) -> tuple[str, Folder]:
    """Return what weights are called, and where they are."""
    file = packaged(name)
    if file is not None:
        return name + PACKAGED, Folder(str(file))
    return str(Folder.at(name)), resolve_place(name)


def _method(known_as: str, taken: Sequence[str]) -> str:
    """Return the shortest name that is no other method's: the last part of a path, or all of it."""
    last = PurePosixPath(known_as).name
    return known_as if last in taken or is_known(last) or not last else last
