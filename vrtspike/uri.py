"""URIs of places, and what of them may be shown and written down."""

from __future__ import annotations

import os
import re

SECRET = re.compile("key|secret|token|password", re.IGNORECASE)
"""An option with one of these in it is not written down."""


def is_remote(where: str | os.PathLike[str]) -> bool:
    """Tell whether a place is a URI rather than a path."""
    return "://" in str(where)


def without_options(uri: str) -> str:
    """Return the place that a URI names: without user, password and options."""
    # A secret may hold slashes: after `user:` everything up to the last @ may be one.
    return re.sub(r"://([^/@:]*:.*|[^/@]*)@", "://", uri.partition("?")[0])


def without_keys(where: str | os.PathLike[str]) -> str:
    """Return a place as it may be shared: a URI without user, password and secret options."""
    if not is_remote(where):
        return str(where)
    options = str(where).partition("?")[2].split("&")
    kept = "&".join(option for option in options if not SECRET.search(option))
    return without_options(str(where)) + (f"?{kept}" if kept else "")
