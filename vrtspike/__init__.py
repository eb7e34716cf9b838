"""vrtspike: video restoration transformers that deblur with the help of a spike camera."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrtspike.config.loader import load_config
    from vrtspike.evaluation.run import evaluate
    from vrtspike.metrics.image import psnr, ssim
    from vrtspike.model.build import build_model
    from vrtspike.model.weights import load_weights
    from vrtspike.restoration.restorer import Restorer
    from vrtspike.simulate.camera import simulate_camera
    from vrtspike.spikes.stream import SpikeStream
    from vrtspike.spikes.voxels import voxelize

__version__ = "0.1.0"
__all__ = [
    "Restorer",
    "SpikeStream",
    "build_model",
    "evaluate",
    "load_config",
    "load_weights",
    "psnr",
    "simulate_camera",
    "ssim",
    "voxelize",
]
_HOMES = {
    "Restorer": "restoration.restorer",
    "SpikeStream": "spikes.stream",
    "build_model": "model.build",
    "evaluate": "evaluation.run",
    "load_config": "config.loader",
    "load_weights": "model.weights",
    "psnr": "metrics.image",
    "simulate_camera": "simulate.camera",
    "ssim": "metrics.image",
    "voxelize": "spikes.voxels",
}

WAIT_POLICY = "OMP_WAIT_POLICY"
# OpenMP reads it when torch is loaded. By default its threads spin at every barrier: on a machine
# with other work they take the cores that the thread they wait for needs, and all take many times
# longer. Programs that this one starts, Ray's among them, inherit it.
os.environ.setdefault(WAIT_POLICY, "passive")


def load_on_demand(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which imports a name from its module when it is asked for.

    Importing the package alone then loads nothing heavy, such as torch.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"vrtspike.{homes[name]}"), name)

    return load


__getattr__ = load_on_demand(__name__, _HOMES)
