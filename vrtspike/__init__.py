"""vrtspike: video restoration transformers that deblur with the help of a spike camera."""

from __future__ import annotations

import os

__version__ = "0.1.0"

WAIT_POLICY = "OMP_WAIT_POLICY"
# OpenMP reads it when torch is loaded. By default its threads spin at every barrier: on a machine
# with other work they take the cores that the thread they wait for needs, and all take many times
# longer. Programs that this one starts, Ray's among them, inherit it.
os.environ.setdefault(WAIT_POLICY, "passive")
