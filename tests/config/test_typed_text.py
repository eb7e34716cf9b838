"""Overrides of texts and paths are taken as they were typed, whatever YAML would make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vrtspike.config.loader import load_config
from vrtspike.errors import ConfigError


@pytest.mark.parametrize(
    "name", ["exp #3", "2024-05-01", "007", "12:30", "yes", "1_000", "null", "1e5", "{a}", "a: b"]
)
def test_a_name_is_what_was_typed(name: str) -> None:
    assert load_config(None, [f"run.name={name}"]).run.name == name


def test_a_path_is_what_was_typed() -> None:
    found = load_config(None, ["data.shards=out/exp #3/sh", "data.source=007"]).data
    assert (found.shards, found.source) == (Path("out/exp #3/sh"), Path("007"))


def test_other_settings_are_read_as_yaml() -> None:
    found = load_config(None, ["train.steps=1_000", "train.init_weights=null"]).train
    assert (found.steps, found.init_weights) == (1000, None)


def test_a_number_in_a_file_where_a_text_belongs_says_how_to_write_it(tmp_path: Path) -> None:
    for section in ("run: {name: 007}", "data: {source: 007}"):
        (tmp_path / "a.yaml").write_text(section)
        with pytest.raises(ConfigError, match=r"is a text.*got 7.*Fix: put the value in quotes"):
            load_config(tmp_path / "a.yaml")
