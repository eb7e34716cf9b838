"""Imports point one way, and only the distributed parts need Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "vrtspike"

FOUNDATION = {
    *("errors", "section", "scene_settings", "settings", "sweep_settings", "config"),
    *("heap", "lock", "progress", "run_files", "storage", "uri", "weights", "whole_file"),
    *("csv_text", "json_text", "names", "own_files", "yaml_text"),
}
ALLOWED = {
    "csv_text": set(),
    "errors": {"uri"},
    "run_files": set(),
    "uri": set(),
    "weights": set(),
    "section": {"names", "uri"},
    "sweep_settings": {"section"},
    "scene_settings": {"section"},
    "settings": {"scene_settings", "section", "sweep_settings"},
    "config": {"errors", "settings", "yaml_text"},
    "heap": set(),
    "json_text": set(),
    "lock": {"own_files"},
    "names": set(),
    "own_files": {"errors"},
    "progress": set(),
    "storage": {"errors", "uri", "whole_file"},
    "whole_file": {"errors", "own_files"},
    "yaml_text": set(),
    "cluster": FOUNDATION,
    "outcome": FOUNDATION | {"cluster"},
    "data": FOUNDATION,
    "simulate": FOUNDATION | {"data"},
    "model": FOUNDATION,
    "perceptual": FOUNDATION,
    "losses": FOUNDATION | {"perceptual", "metrics"},
    "metrics": FOUNDATION | {"perceptual"},
    "viz": FOUNDATION | {"data", "metrics", "inference"},
    "inference": FOUNDATION | {"data", "model", "losses", "metrics", "perceptual"},
    "training": FOUNDATION
    | {
        "cluster",
        "data",
        "simulate",
        "model",
        "losses",
        "metrics",
        "perceptual",
        "inference",
        "viz",
    },
    "tuning": FOUNDATION
    | {"cluster", "data", "inference", "outcome", "perceptual", "training", "viz"},
    "bench": FOUNDATION
    | {"cluster", "data", "inference", "model", "losses", "simulate", "training"},
}
"""What each part may import; one that is not listed (cli, commands, demo) may import everything."""

NEEDS_RAY = {
    "cluster.py",
    "data/prepare.py",
    "data/pipeline.py",
    "inference/distributed.py",
    "simulate/distributed.py",
    "training/worker.py",
    "training/claim.py",
    "training/trainer.py",
    "training/inputs.py",
    "training/watch.py",
    "tuning/comparison.py",
    "tuning/desk.py",
    "tuning/nodes.py",
    "tuning/schedule.py",
    "tuning/trial.py",
    "tuning/tuner.py",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            if node.module == "vrtspike":
                names |= {f"vrtspike.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """Return the part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    used = {name.split(".")[1] for name in imported(path) if name.startswith("vrtspike.")}
    if part in ALLOWED:
        assert used <= ALLOWED[part] | {part, "__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_distributed_parts_import_ray(path: Path) -> None:
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(path))
    assert not uses_ray or str(path.relative_to(PACKAGE)) in NEEDS_RAY


def test_every_part_has_a_rule_or_is_a_program() -> None:
    parts = {part_of(path) for path in FILES}
    assert parts - set(ALLOWED) <= {"__init__", "__main__", "cli", "commands", "demo"}


def test_the_plain_parts_work_where_ray_cannot_be_imported() -> None:
    modules = sorted(
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if str(path.relative_to(PACKAGE)) not in NEEDS_RAY | {"__main__.py"}
    )
    code = (
        "import importlib, sys\n"
        "sys.modules['ray'] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_prints(path: Path) -> None:
    calls = (
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    assert part_of(path) == "commands" or "print" not in calls
