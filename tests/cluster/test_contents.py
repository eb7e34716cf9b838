"""Every path, command, option, setting and variable that the cluster files name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.commands import REPOSITORY, check, check_name, local, ray_source

FILES = sorted(path for path in (REPOSITORY / "cluster").rglob("*") if path.is_file())
MANIFESTS = [path for path in FILES if path.suffix == ".yaml"]
FILE = re.compile(r"[\w$~/.-]+\.(?:md|py|sh|toml|txt|yaml)\b(?!\.)")
MADE_BY_RAY = "~/ray_bootstrap_config.yaml"


def id_of(path: Path) -> str:
    return path.name


def commands_in(tree: Any, key: str = "") -> Iterator[str]:
    """Yield the shell commands of a manifest: those of `*_commands`, and jobs' entrypoints."""
    if isinstance(tree, dict):
        for name, below in tree.items():
            yield from commands_in(below, name)
    elif isinstance(tree, list):
        for below in tree:
            yield from commands_in(below, key)
    elif key == "entrypoint" or key.endswith("_commands"):
        yield tree


@pytest.mark.parametrize("path", MANIFESTS, ids=id_of)
def test_commands_exist(path: Path) -> None:
    for command in commands_in(yaml.safe_load(path.read_text())):
        check(command)


def test_the_commands_were_found() -> None:
    found = sum(check(c) for p in MANIFESTS for c in commands_in(yaml.safe_load(p.read_text())))
    assert found == 13  # `ray stop` and `ray start` of head and nodes in three files, and a job


@pytest.mark.parametrize("path", FILES, ids=id_of)
def test_commands_in_comments_exist(path: Path) -> None:
    text = path.read_text()
    for named in re.findall(r"`((?:ray|vrtspike) [^`]+)`", text):
        check_name(named) if re.fullmatch(r"[a-z -]+", named) else check(named)
    for line in re.findall(r"^# *((?:ray|kubectl|docker) .*)", text, re.MULTILINE):
        check(re.split(r",|  ", line)[0])


def missing(text: str, beside: Path) -> list[str]:
    """List the files and folders of this repository that a text names and that are not there."""
    text = re.sub(r"\w+://\S+|--\S+=|\{.*?\}", " ", text)
    words = {word.strip("\"'`:,;()[]").rstrip(".") for word in text.split()}
    named = {word for word in words if local(word)} | set(FILE.findall(text)) - {MADE_BY_RAY}
    places = {name: (local(name), REPOSITORY / name, beside / name) for name in named}
    return [name for name, at in places.items() if not any(p and p.exists() for p in at)]


@pytest.mark.parametrize("path", FILES, ids=id_of)
def test_paths_exist(path: Path) -> None:
    assert not missing(path.read_text(), path.parent)


@pytest.mark.parametrize(
    "text",
    [
        "bash ~/checkout/cluster/nodes.sh",
        "as config/gopro_spike.yaml wants",
        "like configs/gopro.yaml.",
        "COPY constraint.txt ./",
        "  ~/checkout/vrtspike/nowhere: x",
    ],
)
def test_a_wrong_path_is_found(text: str) -> None:
    assert missing(text, REPOSITORY / "cluster")


@pytest.mark.parametrize("path", FILES, ids=id_of)
def test_variables_of_ray_are_read_by_ray(path: Path) -> None:
    for name in set(re.findall(r"\bRAY_[A-Za-z_]+", path.read_text())):
        assert re.search(rf"\b{name}\b", ray_source()), f"Ray reads no {name}"


def test_a_wrong_variable_would_be_found() -> None:
    assert not re.search(r"\bRAY_JOB_STOP_WAIT_TIME\b", ray_source())


@pytest.mark.parametrize("path", MANIFESTS, ids=id_of)
def test_what_is_to_be_filled_in_is_said_on_top(path: Path) -> None:
    lines = path.read_text().splitlines()
    top = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    below = [line for line in lines[top:] if not line.lstrip().startswith("#")]
    assert any("FILL IN" in line for line in lines[:top])
    assert any("FILL_IN" in line for line in below)
    assert not any("FILL IN" in line for line in below)
