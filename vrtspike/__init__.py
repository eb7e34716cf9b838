"""vrtspike: video restoration transformers that deblur with the help of a spike camera."""

from __future__ import annotations

__version__ = "0.1.0"
