"""Settings: one file a section, and the loader of YAML files and overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrtspike import load_on_demand

if TYPE_CHECKING:
    from vrtspike.config.config import Config
    from vrtspike.config.loader import load_config

__all__ = ["Config", "load_config"]
# `vrtspike --help` needs neither.
__getattr__ = load_on_demand(__name__, {"Config": "config.config", "load_config": "config.loader"})
