"""URIs of places, and what of them may be shown and written down."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

_WORD = r"[A-Za-z0-9._-]{1,80}"
_NUMBER = r"[0-9.]{1,20}"
_SWITCH = r"true|false|True|False|0|1"
_HOST = r"(https?://)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?/?"
_PATH = r"[A-Za-z0-9._/ -]{1,255}"
HARMLESS = {
    **dict.fromkeys(("region", "scheme", "project_id", "blob_storage_scheme"), _WORD),
    **dict.fromkeys(("dfs_storage_scheme", "user"), _WORD),
    **dict.fromkeys(("endpoint_override", "blob_storage_authority"), _HOST),
    "dfs_storage_authority": _HOST,
    **dict.fromkeys(("allow_bucket_creation", "allow_bucket_deletion", "enable_tls"), _SWITCH),
    **dict.fromkeys(("force_virtual_addressing", "tls_verify_certificates"), _SWITCH),
    **dict.fromkeys(("check_directory_existence_before_creation", "anonymous"), _SWITCH),
    **dict.fromkeys(("retry_limit_seconds", "replication", "buffer_size"), _NUMBER),
    "default_block_size": _NUMBER,
    "tls_ca_file_path": _PATH,
}
"""The options of pyarrow's file systems that say where and how, by name, and how their values look.
Only these are written down: whatever else there is may be a key."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://\S+")
_CLOSING = "'\"),.;:]}>`"


def is_remote(where: str | os.PathLike[str]) -> bool:
    """Tell whether a place is a URI rather than a path."""
    return "://" in str(where)


def without_options(uri: str) -> str:
    """Return the place that a URI names: without user, password and options."""
    # A secret may hold slashes: after `user:` everything up to the last @ may be one.
    place = re.sub(r"://([^/@:]*:.*|[^/@]*)@", "://", re.split("[?#]", uri, maxsplit=1)[0])
    # It may hold a question mark, too, and then ends behind it; what follows a colon is a port.
    return re.sub(r"://[^/:]*:(?!:|\d+(/|$)).*", "://", place)


def without_keys(where: str | os.PathLike[str]) -> str:
    """Return a place as it may be shared: a URI without user, password and unknown options."""
    if not is_remote(where):
        return str(where)
    options = str(where).partition("#")[0].partition("?")[2].split("&")
    kept = "&".join(filter(_is_harmless, options))
    return without_options(str(where)) + (f"?{kept}" if kept else "")


def without_secrets(text: str) -> str:
    """Return a text in which every URI is without user, password and unknown options."""
    return _URI.sub(_cleaned, text) if "://" in text else text


def _cleaned(match: re.Match[str]) -> str:
    """Return a URI in a text as it may be shared; signs that close a sentence are no part of it."""
    uri = match[0].rstrip(_CLOSING)
    return without_keys(uri) + match[0][len(uri) :]


def _is_harmless(option: str) -> bool:
    name, _, value = option.partition("=")
    return name in HARMLESS and re.fullmatch(HARMLESS[name], unquote(value)) is not None
