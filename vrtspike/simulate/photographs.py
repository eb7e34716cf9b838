"""The photographs that scenes are made of: those that ship inside scikit-image.

Each split has photographs of its own, so that nothing a model is measured on was trained on. Gray
ones serve as textures of objects; backgrounds are colour, except one of the held-out ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import UInt8

from vrtspike.data.image_file import open_image
from vrtspike.errors import ResourceError


@dataclass(frozen=True)
class PhotographSet:
    """Names of the photographs of a split: whole views, and textures for objects."""

    backgrounds: tuple[str, ...]
    textures: tuple[str, ...]


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


def photographs_of(split: str) -> PhotographSet:
    """Return the photographs of a split; others than train and val share theirs."""
    match split:
        case "train":
            return TRAIN
        case "val":
            return VALIDATION
    return HELD_OUT


@lru_cache(maxsize=16)
def load_photograph(name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Load a photograph as RGB, read-only."""
    resource = files("skimage.data").joinpath(name)
    try:
        with resource.open("rb") as file, open_image(file) as image:
            rgb = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise ResourceError(
            "a photograph that ships with scikit-image is missing",
            where=name,
            fix="install scikit-image from its wheel",
        ) from error
    rgb.flags.writeable = False
    return rgb
