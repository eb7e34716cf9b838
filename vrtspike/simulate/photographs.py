"""Photographs for rendered scenes: those of scikit-image, or the user's own.

No photograph is in two splits, so that a model is never evaluated on a photograph of its training.
All splits other than train and val share the held-out photographs.

- scikit-image: the files are listed here. Gray photographs are only textures of objects;
  backgrounds are in colour, except one that is held out.
- The user's own: the given files, and every image file in the given folders and below. All serve as
  backgrounds and as textures. A hash of the file's name without its suffix, as a number in [0, 1),
  decides the split: below 0.9 train, below 0.95 val, otherwise held out. So a new file does not
  move the others, and copies in another format or folder have the split of the original. If
  held-out or val gets no photograph, it borrows the one with the greatest number below its range,
  until a new file falls into the range. So a new file may move a borrowed photograph to the
  training, but it never moves one out of the training.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vrtspike.errors import ConfigError, ResourceError
from vrtspike.video.image_file import IMAGE_SUFFIXES, open_image, read_image

Photograph = UInt8[np.ndarray, "h w 3"]
Name = str | Path
"""A file name of scikit-image, or the path of a user's photograph."""
LONGEST_SIDE = 2048
"""Larger photographs are reduced until their longer side has at most this many pixels. A scene
uses less, and sixteen photographs stay in memory."""
VAL_FROM, HELD_OUT_FROM = 0.9, 0.95
SETTING = "scenes.photographs"


@dataclass(frozen=True)
class PhotographSet:
    """The photographs of a split: backgrounds, and further textures for objects.

    It is a sequence of all of them; an item is read when it is used.
    """

    backgrounds: tuple[Name, ...]
    textures: tuple[Name, ...] = ()

    def __len__(self) -> int:
        """Return the number of backgrounds plus textures."""
        return len(self.backgrounds) + len(self.textures)

    def __getitem__(self, index: int) -> Photograph:
        """Load a photograph; the backgrounds come first, then the textures."""
        return load_photograph((self.backgrounds + self.textures)[index])


TRAIN = PhotographSet(
    (
        "astronaut.png",
        "motorcycle_left.png",
        "retina.jpg",
        "motorcycle_right.png",
        "hubble_deep_field.jpg",
    ),
    ("brick.png", "gravel.png", "coins.png"),
)
VALIDATION = PhotographSet(("ihc.png", "rocket.jpg"), ("clock_motion.png", "cell.png"))
HELD_OUT = PhotographSet(("chelsea.png", "coffee.png", "camera.png"), ("grass.png", "moon.png"))


def photographs_of(split: str, own: Sequence[Path] | None = None) -> PhotographSet:
    """Return the photographs of a split.

    `own` lists files and folders of the user's photographs; if it is None, those of scikit-image
    are used.
    """
    if own is not None:
        parts = divided(_find_once(tuple(own)))
        return PhotographSet(parts.get(split, parts["held_out"]))
    match split:
        case "train":
            return TRAIN
        case "val":
            return VALIDATION
    return HELD_OUT


@lru_cache(maxsize=4)
def _find_once(places: tuple[Path, ...]) -> tuple[Path, ...]:
    """List photographs once per process, because thousands of scenes use the list."""
    return find_photographs(places)


def find_photographs(places: Iterable[Path]) -> tuple[Path, ...]:
    """List the image files in `places` (files, and folders with all folders below), each once.

    The order is that of their numbers (see the module), which mixes folders and names. Raise
    ConfigError if a place does not exist or has no image file.
    """
    by_path: dict[Path, Path] = {}
    for place in places:
        for file in _files_at(place):
            by_path.setdefault(file.resolve(), file)
    return tuple(sorted(by_path.values(), key=_number))


def divided(photographs: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Divide photographs into train, val and held_out by their names; keep their order.

    Raise ConfigError if there are too few for three splits.
    """
    numbers = {file: _number(file) for file in photographs}
    remaining, parts = sorted(set(numbers.values())), {}
    for split, lowest in (("held_out", HELD_OUT_FROM), ("val", VAL_FROM), ("train", 0.0)):
        chosen = {number for number in remaining if number >= lowest} or set(remaining[-1:])
        remaining = [number for number in remaining if number not in chosen]
        parts[split] = tuple(file for file in photographs if numbers[file] in chosen)
    if not parts["train"]:
        raise ConfigError(
            "there are too few photographs to keep those of train, val and held-out apart",
            where=SETTING,
            got=f"{len(photographs)} of {len(set(numbers.values()))} names",
            expected="at least one for each (their names decide which)",
            fix="add photographs; a dozen are enough",
        )
    return parts


def describe_photographs(places: Sequence[Path]) -> dict[str, object]:
    """Return what `dataset.yaml` says about the user's photographs.

    It names files without their folders, so that it does not change when they are moved.
    """
    photographs = find_photographs(places)
    listing = "\n".join(f"{file.name} {file.stat().st_size}" for file in photographs)
    digest = hashlib.sha256(os.fsencode(listing)).hexdigest()
    return {
        "from": [place.name for place in places],
        "files": len(photographs),
        "sha256": digest[:16],
    }


@lru_cache(maxsize=16)
def load_photograph(name: Name) -> Photograph:
    """Load a photograph as read-only RGB."""
    rgb = _read_own(name) if isinstance(name, Path) else _read_shipped(name)
    rgb.flags.writeable = False
    return rgb


def _files_at(place: Path) -> list[Path]:
    """Return the image files at a path or below it, sorted; raise ConfigError if there are none."""
    if place.is_dir():
        images = [
            file
            for file in sorted(place.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(place).parts)
            and file.is_file()
        ]
    else:
        images = [place] if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file() else []
    if not images:
        got = "a folder without any" if place.is_dir() else "a file of another kind"
        raise ConfigError(
            "no photographs there",
            where=f"{SETTING} {place}",
            got=got if place.exists() else "no such file or folder",
            expected=f"an image file ({', '.join(IMAGE_SUFFIXES)}), or a folder of them",
        )
    return images


def _number(file: Path) -> float:
    """Return a hash of the file's name without its suffix, as a number in [0, 1)."""
    digest = hashlib.sha256(os.fsencode(file.stem)).digest()
    return int.from_bytes(digest[:6]) / 2.0**48


def _read_own(file: Path) -> Photograph:
    """Read an image file as a camera showed it, upright, and not larger than scenes need."""
    upright = Image.fromarray(read_image(file))
    return np.array(upright.reduce(-(-max(upright.size) // LONGEST_SIDE)))


def _read_shipped(name: str) -> Photograph:
    """Read a photograph that ships with scikit-image."""
    resource = files("skimage.data").joinpath(name)
    try:
        with resource.open("rb") as file, open_image(file) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise ResourceError(
            "a photograph that ships with scikit-image is missing",
            where=name,
            fix="install scikit-image from its wheel",
        ) from error
