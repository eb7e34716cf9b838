"""A SpikeCV folder says its geometry, and which files are its streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vrtspike.datasets.spikecv import read_spikecv
from vrtspike.errors import DataFormatError
from vrtspike.spikes.packed_writer import write_dat

CONFIG = {"spike_w": 16, "spike_h": 6, "is_labeled": False}
SPIKES = np.random.default_rng(0).random((5, 6, 16)) < 0.4


def write_folder(root: Path, files: tuple[str, ...] = ("a.dat",), **config: Any) -> Path:
    """Write a dataset folder; a key of None is left out."""
    for name in files:
        (root / name).parent.mkdir(exist_ok=True)
        write_dat(root / name, SPIKES)
    keys = {key: value for key, value in (CONFIG | config).items() if value is not None}
    (root / "config.yaml").write_text(yaml.safe_dump(keys))
    return root


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"filename": "a.dat"}, ["a.dat"]),
        ({}, ["a.dat", "b 2.dat"]),
        ({"filename": "b*.dat"}, ["b 2.dat"]),
        ({"data_field_identifier": "spikes"}, ["spikes/c.dat", "spikes/d.dat"]),
        ({"data_field_identifier": "spikes", "filename": "[d]*"}, ["spikes/d.dat"]),
        ({"filename": "spikes/c.dat"}, ["spikes/c.dat"]),
    ],
)
def test_streams_are_found_and_opened(
    tmp_path: Path, config: dict[str, str], names: list[str]
) -> None:
    files = ("a.dat", "b 2.dat", ".hidden.dat", "spikes/c.dat", "spikes/d.dat")
    write_folder(tmp_path, files, **config)
    (tmp_path / "notes.txt").write_text("no stream")
    info = read_spikecv(tmp_path)
    assert (info.spike_h, info.spike_w) == (6, 16)
    assert [str(path.relative_to(tmp_path)) for path in info.stream_paths()] == names
    stream = info.open(info.stream_paths()[0], threshold=2.0)
    np.testing.assert_array_equal(stream[:], SPIKES)
    assert stream.threshold == 2.0


def test_other_keys_are_passed_over(tmp_path: Path) -> None:
    others = {"labeled_data_type": [3.1, 2], "labeled_data_suffix": "npz", "fps": 40}
    info = read_spikecv(write_folder(tmp_path, is_labeled=True, **others))
    assert info == read_spikecv(write_folder(tmp_path, is_labeled=True))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"spike_w": None}, "spike_w: the key is missing.*expected spike_w, spike_h"),
        ({"spike_h": None}, "spike_h: the key is missing"),
        ({"is_labeled": None}, "is_labeled: the key is missing"),
        ({"spike_w": 0}, "spike_w: .*got 0"),
        ({"spike_w": "400"}, "spike_w: .*got '400'"),
        ({"spike_h": 2.5}, "spike_h: .*got 2.5"),
        ({"is_labeled": "yes please"}, "is_labeled: .*got 'yes please'"),
        ({"filename": "../other.dat"}, "filename: .*within the dataset's folder"),
        ({"filename": "/etc/*.dat"}, "filename: .*within the dataset's folder"),
        ({"data_field_identifier": 3}, "data_field_identifier: .*got 3"),
    ],
)
def test_bad_keys_are_named(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataFormatError, match=message) as caught:
        read_spikecv(write_folder(tmp_path, **config))
    assert str(tmp_path / "config.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "config.yaml is empty"), (b"- a\n", "not the configuration.*got list"),
     (b"a: [", "cannot read the config.yaml"), (b"\xff\xfe\xfd", "cannot read the config.yaml")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(DataFormatError, match=message):
        read_spikecv(tmp_path)


def test_missing_folders_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"no such config.yaml"):
        read_spikecv(tmp_path)
    with pytest.raises(DataFormatError, match="must be a folder"):
        read_spikecv(tmp_path / "none")
    for config in ({"filename": "b.dat"}, {"filename": "z*"}):
        with pytest.raises(DataFormatError, match=r"holds no stream.*expected (b.dat|z\*)"):
            read_spikecv(write_folder(tmp_path, **config)).stream_paths()
    with pytest.raises(DataFormatError, match="no folder of streams"):
        read_spikecv(write_folder(tmp_path, data_field_identifier="spikes")).stream_paths()
    with pytest.raises(DataFormatError, match="not a whole number of steps"):
        info = read_spikecv(write_folder(tmp_path, spike_w=400, spike_h=250))
        info.open(info.stream_paths()[0])


def test_genuine_streams_open_by_a_config(shared: Path, tmp_path: Path) -> None:
    for name in ("reds_200_part1.dat", "reds_203_part1.dat"):
        (tmp_path / name).symlink_to(shared / "data" / name)
    info = read_spikecv(write_folder(tmp_path, (), spike_w=400, spike_h=250))
    assert [info.open(path).shape for path in info.stream_paths()] == 2 * [(301, 250, 400)]
