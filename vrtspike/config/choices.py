"""Names that both settings and options of commands choose from."""

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
"""How a dataset folder is laid out (`vrtspike.datasets.layouts`)."""

Precision = Literal["float32", "bfloat16"]
"""Arithmetic of a model."""
