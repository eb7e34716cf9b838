"""Messages that a user can act on."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from vrtspike.errors import (
    CheckpointError,
    ConfigError,
    DataFormatError,
    ResourceError,
    VrtSpikeError,
    error_from_text,
    error_text,
)

KINDS = [ConfigError, DataFormatError, CheckpointError, ResourceError]


def test_a_message_holds_what_where_got_expected_and_fix_in_this_order() -> None:
    error = DataFormatError("wrong size", where="a.dat", got=10, expected=20, fix="set --height")
    assert str(error) == "wrong size [a.dat]: got 10, expected 20. Fix: set --height"


def test_parts_that_are_not_given_leave_no_trace() -> None:
    assert str(ConfigError("unknown key")) == "unknown key"
    assert str(ConfigError("wrong", got=0)) == "wrong: got 0"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_vrtspike_error_and_survives_pickling(kind: type[VrtSpikeError]) -> None:
    error = kind("what", where="w", got=1, expected=2, fix="f")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.fix == "f"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_as_text(kind: type[VrtSpikeError]) -> None:
    error = kind("what", where=Path("w"), got=1, fix="f")
    again = error_from_text(error_text(error))
    assert type(again) is kind and str(again) == str(error) == "what [w]: got 1. Fix: f"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", '"x"', '{"kind": "ConfigError"}', '{"kind": []}', "[" * 10_000),
        '{"kind": "OSError", "what": "w"}',
        '{"kind": "ConfigError", "what": 1}',
        '{"kind": "ConfigError", "what": "w", "more": "x"}',
    ],
)
def test_other_text_is_no_error_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match="not an error of ours"):
        error_from_text(text)
