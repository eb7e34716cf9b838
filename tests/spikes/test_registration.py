"""Registration moves bits to where the frames see them, and invents none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tests.datasets.findings_of import validate
from tests.datasets.layout_trees import Scene, Tree, pack, unpack, write_own
from vrtspike.datasets.clip import read_spikes, read_spikes_around
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError
from vrtspike.spikes.registration import Crop, Homography

SPIKES = np.random.default_rng(0).random((3, 12, 16)) < 0.5
Matrix = tuple[tuple[float, float, float], ...]


def homography(matrix: Any, height: int, width: int, scale: float = 1.0) -> Homography:
    return Homography.model_validate(
        {"matrix": matrix, "height": height, "width": width, "scale": scale}
    )


def test_a_crop_is_a_slice() -> None:
    crop = Crop(top=2, left=3, height=5, width=8)
    assert crop.grid == (5, 8)
    np.testing.assert_array_equal(crop.apply(SPIKES), SPIKES[:, 2:7, 3:11])


@pytest.mark.parametrize("changes", [{"top": 8}, {"left": 9}, {"height": 13}, {"width": 17}])
def test_a_crop_that_leaves_the_sensor_is_refused(changes: dict[str, int]) -> None:
    crop = Crop.model_validate({"top": 0, "left": 0, "height": 5, "width": 8} | changes)
    with pytest.raises(DataFormatError, match=r"leaves the spike sensor.*within 12x16"):
        crop.apply(SPIKES)


def shifted(spikes: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    return np.pad(spikes, ((0, 0), rows, columns))


IDENTITY = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@pytest.mark.parametrize(
    ("matrix", "scale", "expected"),
    [
        (IDENTITY, 1.0, SPIKES),
        (IDENTITY, 2.0, SPIKES[:, 1::2, 1::2]),
        (((0.5, 0, 0), (0, 0.5, 0), (0, 0, 1)), 2.0, SPIKES),
        (((1, 0, 4), (0, 1, 3), (0, 0, 1)), 1.0, shifted(SPIKES[:, 3:, 4:], (0, 3), (0, 4))),
        (((1, 0, -4), (0, 1, -3), (0, 0, 1)), 1.0, shifted(SPIKES[:, :9, :12], (3, 0), (4, 0))),
        (((0, 1, 0), (-1, 0, 12), (0, 0, 1)), 1.0, np.rot90(SPIKES, -1, axes=(1, 2))),
        (((0, -1, 16), (1, 0, 0), (0, 0, 1)), 1.0, np.rot90(SPIKES, 1, axes=(1, 2))),
        (((-1, 0, 16), (0, 1, 0), (0, 0, 1)), 1.0, SPIKES[:, :, ::-1]),
    ],
    ids=["identity", "coarser", "scales", "shift", "shift back", "turn", "turn back", "mirror"],
)
def test_a_homography_equals_what_numpy_does(matrix: Matrix, scale: float, expected: Any) -> None:
    height, width = expected.shape[1:]
    for sign in (1, -1, 1e-6):
        scaled = sign * np.array(matrix, float)
        found = homography(scaled.tolist(), height, width, scale).apply(SPIKES)
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, expected)


def test_a_projection_agrees_with_a_pixel_by_pixel_one() -> None:
    matrix = np.array([[0.9, 0.1, -1.5], [-0.05, 1.1, 0.7], [0.004, -0.01, 1.0]])
    expected = np.zeros((3, 10, 14), bool)
    for row in range(10):
        for column in range(14):
            u, v, w = matrix @ ((column + 0.5) * 1.3, (row + 0.5) * 1.3, 1.0)
            x, y = int(np.floor(u / w)), int(np.floor(v / w))
            if w > 0 and 0 <= x < 16 and 0 <= y < 12:
                expected[:, row, column] = SPIKES[:, y, x]
    found = homography(matrix.tolist(), 10, 14, 1.3).apply(SPIKES)
    np.testing.assert_array_equal(found, expected)
    assert expected.any()
    assert not expected.all()


def test_what_lies_outside_or_behind_never_fires() -> None:
    ones = np.ones((2, 12, 16), bool)
    assert not homography(((1, 0, 16), (0, 1, 0), (0, 0, 1)), 12, 16).apply(ones).any()
    horizon = homography(((1, 0, 0), (0, 1, 0), (-0.1, 0, 1)), 12, 16).apply(ones)
    assert horizon[:, :, :3].any() != horizon[:, :, -3:].any(), "one side of the horizon only"


@pytest.mark.parametrize(
    "matrix",
    [((1, 0, 0), (2, 0, 0), (0, 0, 1)), ((np.nan, 0, 0), (0, 1, 0), (0, 0, 1)), np.zeros((3, 3))],
)
def test_a_matrix_without_an_inverse_is_refused(matrix: Any) -> None:
    with pytest.raises(ValidationError, match="cannot be inverted"):
        homography(np.asarray(matrix).tolist(), 4, 4)


def real_rig(root: Path, registration: dict[str, Any], top: int, left: int, zoom: int) -> Tree:
    """Put a dataset's spikes into a larger sensor, `zoom` sensor pixels across each of them."""
    tree = write_own(root, scene=Scene(speed=0.3))
    size = (24 * zoom + 9, 32 * zoom + 11)
    rng = np.random.default_rng(1)
    for path in root.rglob("*.dat"):
        spikes = unpack(path.read_bytes(), 24, 32)
        sensor = rng.random((len(spikes), size[0] + size[0] % 2, 8 * -(-size[1] // 8))) < 0.2
        large = spikes.repeat(zoom, axis=1).repeat(zoom, axis=2)
        sensor[:, top : top + 24 * zoom, left : left + 32 * zoom] = large
        path.write_bytes(pack(sensor))
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    values["spike"] |= {
        "height": sensor.shape[1],
        "width": sensor.shape[2],
        "registration": registration,
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(values))
    return replace(tree)


RIGS = {
    "crop": ({"kind": "crop", "top": 4, "left": 7, "height": 24, "width": 32}, 4, 7, 1),
    "homography": (
        {
            "kind": "homography",
            "matrix": [[1.5, 0, 5], [0, 1.5, 2], [0, 0, 1]],
            "height": 24,
            "width": 32,
            "scale": 2.0,
        },
        2,
        5,
        3,
    ),
}


@pytest.mark.parametrize("rig", RIGS)
def test_a_real_rig_reads_and_validates_as_if_it_were_aligned(rig: str, tmp_path: Path) -> None:
    registration, top, left, zoom = RIGS[rig]
    tree = real_rig(tmp_path, registration, top, left, zoom)
    for (split, sequence), written in tree.sequences.items():
        clip = open_dataset(tmp_path).clip(split, sequence)
        assert clip.info.spike_scale == 2
        np.testing.assert_array_equal(read_spikes(clip), written.spikes)
        around, start = read_spikes_around(clip, 1, 5)
        assert start == 5
        np.testing.assert_array_equal(around, np.concatenate(written.spikes)[35:85])
    assert validate(tmp_path) == []


@pytest.mark.parametrize(
    ("rig", "changes", "kinds"),
    [
        ("crop", {"top": 9, "left": 11}, {"unrelated", "exposure-shift"}),
        ("homography", {"matrix": [[1.5, 0, 900], [0, 1.5, 2], [0, 0, 1]]}, {"dead-spikes"}),
        ("homography", {"matrix": [[-1.5, 0, 101], [0, 1.5, 2], [0, 0, 1]]}, {"orientation"}),
    ],
)
def test_a_wrong_registration_is_found(
    rig: str, changes: dict[str, Any], kinds: set[str], tmp_path: Path
) -> None:
    registration, top, left, zoom = RIGS[rig]
    real_rig(tmp_path, registration | changes, top, left, zoom)
    found = {finding.kind for finding in validate(tmp_path)}
    assert found
    assert found <= kinds


@pytest.mark.parametrize(
    ("rig", "changes", "says"),
    [
        ("crop", {"top": 30}, r"crop leaves the spike sensor: got 24x32 at \(30, 7\)"),
        ("homography", {"scale": 1.0}, "covers 24x32 pixels of frames of 48x64"),
        ("homography", {"height": 20}, "covers 40x64 pixels of frames of 48x64"),
    ],
)
def test_a_registration_that_does_not_fit_is_refused_at_once(
    rig: str, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    registration, top, left, zoom = RIGS[rig]
    real_rig(tmp_path, registration | changes, top, left, zoom)
    with pytest.raises(DataFormatError, match=rf"{says}.*dataset\.yaml|dataset\.yaml.*{says}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("turn", ["bits swapped", "upside down"])
def test_a_turned_stream_of_a_cropped_sensor_is_found(turn: str, tmp_path: Path) -> None:
    registration, top, left, zoom = RIGS["crop"]
    real_rig(tmp_path, registration, top, left, zoom)
    height = yaml.safe_load((tmp_path / "dataset.yaml").read_text())["spike"]["height"]
    for path in tmp_path.rglob("*.dat"):
        packed = np.frombuffer(path.read_bytes(), np.uint8)
        if turn == "bits swapped":
            changed = np.packbits(np.unpackbits(packed), bitorder="little")
        else:
            changed = packed.reshape(40, height, -1)[:, ::-1]
        path.write_bytes(changed.tobytes())
    for finding in validate(tmp_path):
        assert (finding.kind, finding.facts["best_turn"]) == ("orientation", turn)
    assert len(validate(tmp_path)) == 2
