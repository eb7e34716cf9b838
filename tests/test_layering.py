"""Imports point one way, and only the distributed parts need Ray."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "vrtspike"

ROOMS = (
    *("storage", "errors", "weights", "config", "runtime"),
    *("spikes", "video", "datasets", "samples", "simulate"),
    *("model", "metrics", "checkpoints", "runs", "restoration", "evaluation"),
    *("training", "report", "tuning", "bench", "cli"),
)
"""What the package consists of; each imports from those before it, and none from those behind."""

BELOW_ALL = {"storage", "errors"}
"""These two need each other: errors hide the secrets of URIs, and files that fail raise errors."""

DATA = {"spikes", "video", "datasets", "samples", "simulate"}
"""They know no model, and no model knows them."""

NEEDS_RAY = {
    "runtime/ray_session.py",
    "runtime/shared_folder.py",
    "runs/actor_lock.py",
    "samples/prepare.py",
    "samples/stream.py",
    "simulate/on_ray.py",
    "restoration/on_ray.py",
    "training/driver.py",
    "training/heartbeat.py",
    "training/inputs.py",
    "training/worker.py",
    "tuning/comparison.py",
    "tuning/schedule.py",
    "tuning/sweep.py",
    "tuning/trial.py",
    "tuning/tune_searcher.py",
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


def room_of(path: Path) -> str:
    """Return the room of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    """Return the other rooms that a file imports from."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("vrtspike.")}
    return (names & set(ROOMS)) - {room_of(path)}


IN_ROOMS = [path for path in FILES if room_of(path) in ROOMS]


@pytest.mark.parametrize("path", IN_ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    before = set(ROOMS[: ROOMS.index(room)]) | (BELOW_ALL if room in BELOW_ALL else set())
    assert rooms_used(path) <= before
    assert room not in DATA or not rooms_used(path) & {"model"}
    assert room != "model" or not rooms_used(path) & DATA


def test_no_two_modules_import_each_other() -> None:
    graph = {name_of(path): imported_modules(path) for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the package that a file needs while it is imported."""
    known = {name_of(file) for file in FILES}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inner or ({node.module} & known)
    return found - {name_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_distributed_parts_import_ray(path: Path) -> None:
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(path))
    assert not uses_ray or str(path.relative_to(PACKAGE)) in NEEDS_RAY


def test_the_top_level_holds_rooms_and_little_else() -> None:
    assert {room_of(path) for path in FILES} == {*ROOMS, "__init__", "__main__"}
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
    }


def test_the_plain_parts_work_where_ray_cannot_be_imported() -> None:
    modules = sorted(
        name_of(path)
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
    assert room_of(path) == "cli" or "print" not in calls
