"""Every planted defect is found, by kind and place, and clean data give no finding."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.datasets.findings_of import validate
from vrtspike.errors import DataFormatError
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.stream import SpikeStream

SIZE = (64, 96)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, moving_photograph: Callable[..., Path]) -> Path:
    """Return a clean dataset of two splits."""
    root = tmp_path_factory.mktemp("clean") / "set"
    moving_photograph(root, {"one": 4, "two": 4}, split="train", size=SIZE, pixels_a_frame=12)
    (root / "test").mkdir()
    (root / "train" / "two").rename(root / "test" / "two")
    return root


@pytest.fixture
def root(clean: Path, tmp_path: Path) -> Path:
    """Return a copy of the clean dataset, to be spoilt."""
    return Path(shutil.copytree(clean, tmp_path / "set"))


def kinds(root: Path) -> set[str]:
    """Return the kinds of what was found."""
    return {finding.kind for finding in validate(root)}


def each_stream(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:  # type: ignore[type-arg]
    """Change the spikes of every frame of the train split."""
    for path in sorted((root / "train").rglob("*.dat")):
        write_dat(path, change(SpikeStream.open(path, height=SIZE[0], width=SIZE[1])[:]))


def edit_info(root: Path, **changes: object) -> None:
    """Change entries of dataset.yaml."""
    path = root / "dataset.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_clean_data_give_no_finding(clean: Path) -> None:
    calls: list[tuple[int, int]] = []
    assert validate(clean, lambda done, total: calls.append((done, total))) == []
    assert calls == [(1, 2), (2, 2)]


def test_a_folder_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError):
        validate(tmp_path / "none")


def test_missing_and_extra_files(root: Path) -> None:
    (root / "train" / "one" / "sharp" / "000002.png").unlink()
    (root / "test" / "two" / "spike" / "000009.dat").write_bytes(b"")
    findings = {(f.kind, Path(f.where).parent.name, Path(f.where).name) for f in validate(root)}
    assert ("missing", "one", "sharp") in findings
    assert ("extra", "two", "spike") in findings
    shutil.rmtree(root / "train" / "one" / "blurred")
    assert "missing" in kinds(root)


def test_a_gap_in_the_numbers(root: Path) -> None:
    for path in (root / "train" / "one").rglob("000001.*"):
        path.unlink()
    assert kinds(root) == {"gap"}


def test_an_empty_split(root: Path) -> None:
    (root / "val").mkdir()
    assert kinds(root) == {"empty"}


def test_a_cut_stream(root: Path) -> None:
    path = root / "train" / "one" / "spike" / "000001.dat"
    path.write_bytes(path.read_bytes()[:-9])
    (finding,) = validate(root)
    assert (finding.kind, finding.where) == ("stream-size", str(path))
    assert "49143 bytes" in finding.message


@pytest.mark.parametrize("kind", ["blurred", "sharp"])
def test_unreadable_and_wrong_images(root: Path, kind: str) -> None:
    first, second = (root / "train" / "one" / kind / f"00000{i}.png" for i in (0, 1))
    first.write_bytes(first.read_bytes()[:200])
    Image.new("RGB", (7, 7)).save(second)
    findings = validate(root)
    assert [(f.kind, f.where) for f in findings] == [("image", str(first)), ("image", str(second))]


@pytest.mark.parametrize("value", [0, 255])
def test_dead_streams(root: Path, value: int) -> None:
    path = root / "test" / "two" / "spike" / "000003.dat"
    path.write_bytes(bytes([value]) * path.stat().st_size)
    assert [(f.kind, f.where) for f in validate(root)] == [("dead-spikes", str(path))]


def test_blurred_frames_used_as_ground_truth(root: Path) -> None:
    for path in (root / "train" / "one" / "blurred").iterdir():
        shutil.copy(path, path.parent.parent / "sharp")
    findings = [f for f in validate(root) if f.kind == "blurred-is-sharp"]
    assert len(findings) == 4


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (lambda spikes: spikes[:, ::-1], "upside down"),
        (lambda spikes: spikes[:, :, ::-1], "mirrored"),
        (lambda spikes: spikes[:, ::-1, ::-1], "rotated"),
        (lambda spikes: spikes.reshape(64, -1, 8)[:, :, ::-1].reshape(spikes.shape), "bits"),
    ],
)
def test_turned_streams(
    root: Path,
    turn: Callable[[np.ndarray], np.ndarray],  # type: ignore[type-arg]
    says: str,
) -> None:
    each_stream(root, turn)
    (finding,) = validate(root)
    assert finding.kind == "orientation"
    assert says in finding.message


def test_spikes_of_another_scene(root: Path) -> None:
    for path in (root / "test" / "two" / "spike").iterdir():
        shutil.copy(path, root / "train" / "one" / "spike" / path.name)
    assert kinds(root) == {"unrelated", "shared-sequence"}


@pytest.mark.parametrize("steps", [-6, 6])
def test_a_stream_that_is_late_or_early(root: Path, steps: int) -> None:
    paths = sorted((root / "train").rglob("*.dat"))
    stream = np.concatenate([SpikeStream.open(p, height=SIZE[0], width=SIZE[1])[:] for p in paths])
    for path, part in zip(paths, np.split(np.roll(stream, steps, axis=0), 4), strict=True):
        write_dat(path, part)
    found = {f.kind: f.message for f in validate(root)}
    assert f"{steps:+d} steps" in found["exposure-shift"]
    assert "target-shift" in found


def test_a_target_step_that_is_not_the_sharp_frames(root: Path) -> None:
    edit_info(root, target_step=36)
    findings = validate(root)
    assert {f.kind for f in findings} == {"target-shift"}
    assert len(findings) == 2


def test_an_exposure_that_is_not_the_blurred_frames(root: Path) -> None:
    edit_info(root, exposure=[8, 64])
    assert kinds(root) == {"exposure-shift"}


def test_a_wrong_threshold(root: Path) -> None:
    info = yaml.safe_load((root / "dataset.yaml").read_text())
    edit_info(root, spike=info["spike"] | {"threshold": 4.0})
    assert kinds(root) == {"brightness"}


def test_sequences_in_two_splits(root: Path) -> None:
    shutil.copytree(root / "train" / "one", root / "test" / "renamed")
    (finding,) = validate(root)
    assert finding.kind == "shared-sequence"
    assert "train" in finding.message or "test" in finding.message
