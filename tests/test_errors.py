"""Messages that a user can act on."""

from __future__ import annotations

import pickle

import pytest

from vrtspike.errors import (
    CheckpointError,
    ConfigError,
    DataFormatError,
    ResourceError,
    VrtSpikeError,
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
