"""`pip install` is enough: the wheel runs the demo from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PARTS = ("vrtspike", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def python(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment: the wheel, beside the installed libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        part = repository / name
        if part.is_dir():
            shutil.copytree(part, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(part, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    building = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run([*pip, *building], check=True)
    (wheel,) = folder.glob("vrtspike-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (site,) = folder.glob("env/lib/python*/site-packages")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True
    )
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env/bin/python"


def run(python: Path, folder: Path, *arguments: str) -> str:
    """Run the command in a folder, with nothing of the checkout in reach."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        [python, "-m", "vrtspike", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_configurations_and_weights_come_with_it(python: Path, tmp_path: Path) -> None:
    assert "parameters" in run(python, tmp_path, "describe", "--config", "yardstick")
    code = "import vrtspike; from vrtspike.weights import packaged as p; "
    code += "print(vrtspike.__file__, p('small').is_file())"
    done = subprocess.run(
        [python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(python.parent.parent) in done.stdout and "True" in done.stdout


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_demo_runs_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    assert "report: " in run(python, tmp_path, "demo", "--config", "debug")
    assert (tmp_path / "runs/debug/report.html").is_file()
    assert (tmp_path / "runs/debug/fused/export/model.safetensors").is_file()
