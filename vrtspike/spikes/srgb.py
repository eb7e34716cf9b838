"""The sRGB transfer function (IEC 61966-2-1) and its inverse, for values in [0, 1].

linear = encoded / 12.92                        if encoded <= 0.04045
         ((encoded + 0.055) / 1.055) ^ 2.4      otherwise
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def linearise(encoded: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return the linear light of gamma-encoded values."""
    dark = encoded <= 0.04045
    return np.where(dark, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encode(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return the gamma-encoded values of linear light."""
    dark = linear <= 0.0031308
    return np.where(dark, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
