"""Simulations over Ray give what one process gives, and their errors stay readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.simulate.scene_folder import write_scenes
from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings, VideoSettings
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.ray]
SCENES = SceneSettings(sequences={"train": 3, "val": 1}, frames=2, height=48, width=64)
CAMERA = CameraSettings(noise=0.05)


def contents(root: Path) -> dict[str, bytes]:
    """Return every file of a folder by its relative path."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_parallel_scenes_equal_those_of_one_process(tmp_path: Path) -> None:
    from vrtspike.simulate.on_ray import simulate_scenes

    calls: list[tuple[int, int]] = []
    simulate_scenes(SCENES, CAMERA, tmp_path / "ray", lambda *call: calls.append(call))
    write_scenes(SCENES, CAMERA, tmp_path / "one")
    assert calls == [(i, 4) for i in (1, 2, 3, 4)]
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


def test_a_video_is_recorded_and_a_failure_names_the_file(tmp_path: Path) -> None:
    from vrtspike.simulate.on_ray import simulate_video

    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    photograph = np.kron(rng.integers(0, 255, (6, 20, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    for i in range(24):
        Image.fromarray(photograph[:, i : i + 64]).save(frames / f"{i:03d}.png")
    settings = VideoSettings(frames=2, source_frames=4, splits={"train": 0.5, "test": 0.5})
    simulate_video(frames, tmp_path / "set", CAMERA, settings=settings)
    dataset = open_dataset(tmp_path / "set")
    assert [len(dataset.clips(split)) for split in ("train", "test")] == [1, 1]

    from vrtspike.simulate import on_ray as distributed

    source = distributed.inspect_video(frames)
    (frames / "015.png").write_bytes(b"spoilt")
    patch = pytest.MonkeyPatch()
    patch.setattr(distributed, "inspect_video", lambda path: source)
    with pytest.raises(DataFormatError, match=r"not an image.*015\.png") as caught:
        simulate_video(frames, tmp_path / "bad", CAMERA, settings=settings)
    patch.undo()
    assert type(caught.value) is DataFormatError, "not Ray's wrapper of it"
    assert not (tmp_path / "bad" / "dataset.yaml").exists()
