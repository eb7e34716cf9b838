"""Settings: one file a section, and the loader of YAML files and overrides."""

from vrtspike.config.config import Config
from vrtspike.config.loader import load_config

__all__ = ["Config", "load_config"]
