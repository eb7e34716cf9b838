"""The photographs that scenes are made of: those that ship inside scikit-image, or a user's own.

Each split has photographs of its own, so that nothing a model is measured on was trained on; splits
other than train and val share theirs.

- scikit-image's: named here. Gray ones serve as textures of objects; backgrounds are colour, except
  one of the held-out ones.
- One's own: every image file below the given folders, and the given files. All are backgrounds and
  textures. A hash of a file's name without its suffix, as a number in [0, 1), decides its split:
  below 0.9 train, below 0.95 val, the rest held out. So another file moves no photograph, and
  copies of another format or in another folder stay with their original. Where no photograph falls
  to held-out, or none to val, the one of the greatest number below takes the place. It returns when
  another file takes it: a photograph may join the training so, but none ever leaves it.
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
"""A photograph that ships with scikit-image, by its file's name, or one's own, by its path."""
LONGEST_SIDE = 2048
"""Larger photographs are averaged over squares of pixels until they are no longer than this: a
scene uses less, and sixteen of them are held in memory."""
VAL_FROM, HELD_OUT_FROM = 0.9, 0.95
SETTING = "scenes.photographs"


@dataclass(frozen=True)
class PhotographSet:
    """Names of the photographs of a split: whole views, and further textures for objects.

    As a sequence it is all of them, each read when it is asked for.
    """

    backgrounds: tuple[Name, ...]
    textures: tuple[Name, ...] = ()

    def __len__(self) -> int:
        """Return the number of backgrounds and textures."""
        return len(self.backgrounds) + len(self.textures)

    def __getitem__(self, index: int) -> Photograph:
        """Load one of the backgrounds, or of the textures, which follow them."""
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
    """Return the photographs of a split: one's own, from these files and folders, if given."""
    if own is not None:
        parts = divided(_found_once(tuple(own)))
        return PhotographSet(parts.get(split, parts["held_out"]))
    match split:
        case "train":
            return TRAIN
        case "val":
            return VALIDATION
    return HELD_OUT


@lru_cache(maxsize=4)
def _found_once(places: tuple[Path, ...]) -> tuple[Path, ...]:
    """List photographs once a process: thousands of scenes are made of them."""
    return find_photographs(places)


def find_photographs(places: Iterable[Path]) -> tuple[Path, ...]:
    """List the image files that are given, or lie in the given folders or below, each once.

    They are in the order of their numbers (see above), which mixes what folders and names keep
    together. A place that is none, or holds none, is a ConfigError.
    """
    found: dict[Path, Path] = {}
    for place in places:
        for file in _files_at(place):
            found.setdefault(file.resolve(), file)
    return tuple(sorted(found.values(), key=_number))


def divided(photographs: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Divide photographs into train, val and held_out, by their names; in the same order."""
    numbers = {file: _number(file) for file in photographs}
    rest, parts = sorted(set(numbers.values())), {}
    for split, least in (("held_out", HELD_OUT_FROM), ("val", VAL_FROM), ("train", 0.0)):
        taken = {number for number in rest if number >= least} or set(rest[-1:])
        rest = [number for number in rest if number not in taken]
        parts[split] = tuple(file for file in photographs if numbers[file] in taken)
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
    """Return what a description says of one's own photographs, wherever they lie."""
    found = find_photographs(places)
    listing = "\n".join(f"{file.name} {file.stat().st_size}" for file in found)
    digest = hashlib.sha256(os.fsencode(listing)).hexdigest()
    return {"from": [place.name for place in places], "files": len(found), "sha256": digest[:16]}


@lru_cache(maxsize=16)
def load_photograph(name: Name) -> Photograph:
    """Load a photograph as RGB, read-only."""
    rgb = _read_own(name) if isinstance(name, Path) else _read_shipped(name)
    rgb.flags.writeable = False
    return rgb


def _files_at(place: Path) -> list[Path]:
    """Return the image files of one place, sorted by name."""
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
    """Return the number in [0, 1) that stands for a file's name without its suffix."""
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
