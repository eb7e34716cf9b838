"""The floating-point precision of a forward pass."""

from __future__ import annotations

import torch

from vrtspike.config.choices import Precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the autocast context for a forward pass; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
