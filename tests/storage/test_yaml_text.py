"""YAML is read as ever, and what would take minutes or crash is refused at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrtspike.config.loader import load_config
from vrtspike.datasets.info import parse_info
from vrtspike.datasets.spikecv import read_spikecv
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.storage.yaml_text import parse_yaml


def aliases(levels: int, kind: str = "list") -> str:
    """Return mappings or lists of ten aliases each, of such lists."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        ten = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(
            f"a{level}: &a{level} " + (f"[{ten}]" if kind == "list" else f"{{<<: [{ten}]}}")
        )
    return "\n".join(lines)


BOMBS = {
    "aliases": aliases(10),
    "merged aliases": aliases(12, "merge"),
    "an alias of itself": "a: &a [*a]",
    "brackets": "[" * 3000,
    "closed brackets": "[" * 3000 + "]" * 3000,
    "braces": "{a: " * 3000,
    "dashes": "- " * 3000 + "x",
    "indents": "\n".join(" " * n + "a:" for n in range(900)),
    "keys of keys": "? " * 3000,
    "entries": "a: [" + "1," * 90_000 + "]",
    "keys": "".join(f"a{n}: 1\n" for n in range(20_000)),
    "anchors": "".join(f"- &a{n} x\n" for n in range(12_000)),
    "length": "x" * 200_001,
    "no such date": "a: 2001-99-99",
    "digits": "a: " + "1" * 5000,
    "a number in base 60": "a: " + ":".join(["59"] * 1500),
    "a great number": "a: 0x" + "f" * 1000,
    "no integer": "a: !!int x",
    "an empty integer": "a: !!int ''",
    "no float": "a: !!float x",
    "no bool": "a: !!bool x",
    "no timestamp": "a: !!timestamp x",
    "a program": "!!python/object/apply:os.system ['true']",
    "a name": "!!python/name:os.system",
    "an object": "!!python/object/new:os.system ['true']",
}
SLOW = {
    "a word": "a: " + "x" * 190_000,
    "escapes": 'a: "' + "\\x41" * 49_000 + '"',
    "comments": "#x\n" * 60_000,
    "lines": "\n" * 199_000,
    "a block": "a: |\n" + "  x\n" * 49_000,
    "colons": "a" + ":a" * 99_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_explodes_is_refused_at_once(name: str) -> None:
    started = time.process_time()
    with pytest.raises(yaml.YAMLError):
        parse_yaml(BOMBS[name])
    assert time.process_time() - started < 10, "it took 150 s without limits"


@pytest.mark.parametrize("name", SLOW)
def test_what_is_long_takes_no_longer(name: str) -> None:
    started = time.process_time()
    parse_yaml(SLOW[name])
    assert time.process_time() - started < 10, "it took 150 s without limits"


@pytest.mark.parametrize("name", BOMBS)
def test_everyone_who_reads_it_says_so_on_a_line(name: str, tmp_path: Path) -> None:
    def configuration() -> object:
        return load_config(tmp_path / "config.yaml")

    def override() -> object:
        return load_config(None, [f"run.name={BOMBS[name]}"])

    def dataset() -> object:
        return parse_info(BOMBS[name].encode(), "dataset.yaml")

    def spikecv() -> object:
        return read_spikecv(tmp_path)

    (tmp_path / "config.yaml").write_text(BOMBS[name])
    for read in (configuration, dataset, spikecv):
        with pytest.raises((ConfigError, DataFormatError)) as caught:
            read()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500
    try:
        override()  # the text as it was typed may be a name
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x\n",
        "a: [1, 2.5, 1e-3, true, null, ~, 0x1f, 0o7, 1_000, 12:30, 2001-01-01, 'x', \"y\"]",
        "",
        "- !!set {a, b}\n- !!binary aGk=\n",
    ],
)
def test_everything_else_is_what_it_was(text: str) -> None:
    assert parse_yaml(text) == yaml.safe_load(text)


def test_our_own_configurations_are_far_from_the_limits(repository: Path) -> None:
    files = [*repository.glob("configs/**/*.yaml"), *repository.glob("cluster/**/*.yaml")]
    assert len(files) > 10
    for file in files:
        if "kuberay" not in file.parts:
            expected: Any = yaml.safe_load(file.read_text())
            assert parse_yaml(file.read_text()) == expected
