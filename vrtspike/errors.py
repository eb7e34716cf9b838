"""The exceptions of vrtspike.

    VrtSpikeError
    ├── ConfigError       a setting is unknown, has the wrong type, or contradicts another
    ├── DataFormatError   a file or folder does not match its geometry or layout
    │   └── StorageError  a disk or object store fails; trying again later may work
    ├── CheckpointError   saved state is damaged, missing, or does not fit the model
    └── ResourceError     the machine or cluster cannot run the job
        └── NoRoomError   a cluster has no free resources now; later it may

Each message is one line: what, where, got, expected, fix.
"""

from __future__ import annotations

import json
import re

from vrtspike.storage.uri import without_secrets

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, which move a terminal's cursor or reverse its text, and lone surrogates."""


def one_line(error: object, most: int = 300) -> str:
    """Return an exception's message on one line, without colours, cut to `most` characters."""
    return " ".join(_COLOUR.sub("", str(error)).split())[:most]


def visible(text: str) -> str:
    """Return a text with its control characters escaped: a line break becomes `\\n`."""
    if text.isprintable():
        return text
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def named_line(error: BaseException, most: int = 300) -> str:
    """Return an exception's class name and its message on one line."""
    return f"{type(error).__name__}: {one_line(error, most)}"


class VrtSpikeError(Exception):
    """An error with the five parts of a helpful message: what, where, got, expected, fix."""

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        # A URI may contain secret keys, and users share error messages.
        self.what, self.fix = without_secrets(what), fix and without_secrets(fix)
        self.where, self.got, self.expected = map(_shareable, (where, got, expected))
        super().__init__(self.what)

    def __str__(self) -> str:
        line = self.what
        if self.where is not None:
            line += f" [{self.where}]"
        facts = [
            f"{name} {value}"
            for name, value in (("got", self.got), ("expected", self.expected))
            if value is not None
        ]
        if facts:
            line += ": " + ", ".join(facts)
        return visible(line + (f". Fix: {self.fix}" if self.fix else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all parts when the error is pickled."""
        return (type(self), (self.what,), self.__dict__)


def _shareable(part: object) -> object:
    return without_secrets(part) if isinstance(part, str) else part


class ConfigError(VrtSpikeError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class DataFormatError(VrtSpikeError):
    """A file or folder does not match its geometry or layout."""


class StorageError(DataFormatError):
    """A disk or object store fails; trying again later may work."""


class CheckpointError(VrtSpikeError):
    """Saved state is damaged, missing, or does not fit the model."""


class ResourceError(VrtSpikeError):
    """The machine or cluster cannot run the job."""


class NoRoomError(ResourceError):
    """A cluster has no free resources now; later it may."""


KINDS = {
    kind.__name__: kind
    for kind in (
        *(VrtSpikeError, ConfigError, DataFormatError, StorageError),
        *(CheckpointError, ResourceError, NoRoomError),
    )
}


def error_text(error: VrtSpikeError) -> str:
    """Return an error as JSON, with its parts as text."""
    parts = {"what": error.what, "where": error.where, "got": error.got}
    parts |= {"expected": error.expected, "fix": error.fix}
    texts = {name: str(part) for name, part in parts.items() if part is not None}
    return json.dumps({"kind": type(error).__name__, **texts})


def error_from_text(text: str | bytes) -> VrtSpikeError:
    """Return the error that `error_text` wrote; raise ValueError for any other text."""
    try:
        parts = json.loads(text)
        kind = KINDS[parts.pop("kind")]
        if not all(isinstance(part, str) for part in parts.values()):
            raise TypeError("a part is no text")
        return kind(**parts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an error of ours: {one_line(error, 100)}") from None
