"""Roles are on the fields: what may change, what a sweep may try."""

from __future__ import annotations

import pytest

from vrtspike.config.loader import keys_with, known_keys, same_in_trials
from vrtspike.config.roles import COST, MAY_CHANGE, PLACE, SPIKES, SWEPT, SWEPT_BY_TIME


@pytest.mark.parametrize("role", [COST, MAY_CHANGE, PLACE, SPIKES, SWEPT, SWEPT_BY_TIME])
def test_keys_with_a_role_are_settings(role: object) -> None:
    keys = keys_with(role)  # type: ignore[arg-type]
    assert keys and set(keys) <= set(known_keys())


def test_a_role_of_a_section_stands_for_all_in_it() -> None:
    assert "scenes" in keys_with(PLACE)
    assert not any(key.startswith("scenes.") for key in keys_with(PLACE))


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("data.shards", PLACE),
        ("model.spike.chunk_size", COST),
        ("train.steps", MAY_CHANGE),
        ("data.drop_spikes", SPIKES),
        ("data.crop", SWEPT_BY_TIME),
    ],
)
def test_some_settings_and_their_roles(key: str, role: object) -> None:
    assert key in keys_with(role)  # type: ignore[arg-type]


def test_why_trials_share_a_setting() -> None:
    assert same_in_trials()["train.steps"] == "all trials have the same budget"
