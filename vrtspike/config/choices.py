"""Choices that settings and command-line options share."""

from __future__ import annotations

from typing import Literal

LayoutName = Literal[
    "vrtspike",
    "spk_gopro",
    "spk_gopro_gamma",
    "spk_x4k_33",
    "spk_x4k_65",
    "s_sdm",
    "gopro",
    "gopro_gamma",
    "dvd",
    "reds",
    "spikecv",
]
"""Layout of a dataset folder (see `vrtspike.datasets.layouts`)."""

Precision = Literal["float32", "bfloat16"]
"""Floating-point precision of a model."""
