"""Settings: one file for each section, and the loader of YAML files and overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrtspike.config.config import Config
    from vrtspike.config.loader import load_config

__all__ = ["Config", "load_config"]


def __getattr__(name: str) -> Any:
    """Import `Config` and `load_config` on first use, so that `vrtspike --help` starts fast."""
    from importlib import import_module

    modules = {"Config": "vrtspike.config.config", "load_config": "vrtspike.config.loader"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(modules[name]), name)
