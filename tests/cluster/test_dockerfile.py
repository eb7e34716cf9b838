"""The Dockerfile: hadolint finds nothing, and what it copies is there and sent to the builder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "cluster/Dockerfile"
TEXT = DOCKERFILE.read_text()
COPIED = [
    word for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.MULTILINE) for word in line.split()
]


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    """Run hadolint, which a package of the dev extra brings."""
    beside = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint", path=beside) or shutil.which("hadolint")
    assert hadolint, "hadolint is not installed: pip install -e '.[dev]'"
    command = [hadolint, "--no-color", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_hadolint_finds_nothing() -> None:
    done = lint(DOCKERFILE)
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_hadolint_finds_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT.replace("USER 1000\n", "USER root\n"))
    assert "DL3002" in lint(tmp_path / "Dockerfile").stdout


def test_what_is_copied_is_there_and_not_ignored() -> None:
    assert {"constraints.txt", "pyproject.toml", "vrtspike", "configs", "ray_jobs"} <= set(COPIED)
    assert all((REPOSITORY / source).exists() for source in COPIED)
    ignored = (REPOSITORY / "cluster/Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(COPIED)


def test_it_is_python_of_the_nodes_and_no_root() -> None:
    assert re.search(r"^FROM python:3\.11-slim", TEXT, re.MULTILINE)
    assert "--python 3.11 " in (REPOSITORY / "cluster/node.sh").read_text()
    assert re.findall(r"^USER (\S+)$", TEXT, re.MULTILINE) == ["1000"]
    assert "useradd --uid 1000 " in TEXT
