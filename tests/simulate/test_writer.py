"""Simulated datasets: written whole, continued, never mixed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.findings_of import validate
from tests.simulate.scene_folder import write_scenes
from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.datasets.clip import read_frames, read_spikes
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.writer import new_sequence
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.simulate import recording
from vrtspike.simulate.blur import ExposedFrame
from vrtspike.simulate.recording import SceneTask, describe_scenes, record_scene, scene_tasks
from vrtspike.simulate.writer import write_sequence
from vrtspike.spikes.timeline import Timeline

SCENES = SceneSettings(sequences={"train": 2, "val": 1}, frames=3, height=48, width=64)
CAMERA = CameraSettings()


def contents(root: Path) -> dict[str, bytes]:
    """Return every file of a folder by its relative path."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset that was written in one go."""
    root = tmp_path_factory.mktemp("scenes") / "new" / "set"
    write_scenes(SCENES, CAMERA, root)
    return root


def test_what_is_written_is_what_was_recorded(written: Path) -> None:
    dataset = open_dataset(written)
    assert dataset.splits == ("train", "val")
    clip = dataset.clips("train")[1]
    assert clip.sequence == "train_0001"
    assert clip.info.timeline == Timeline(64, (0, 56), 28)
    assert clip.info.camera.rate_hz == CAMERA.rate_hz
    frames = list(record_scene(SceneTask("train", 1), SCENES, CAMERA))
    for kind in ("blurred", "sharp"):
        expected = [getattr(frame, kind) for frame in frames]
        np.testing.assert_array_equal(read_frames(clip, kind), expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_spikes(clip), [frame.spikes for frame in frames])


def test_a_sequence_is_written_as_it_is_recorded(tmp_path: Path) -> None:
    """Of five frames the newest is held, and the one before while the next is made."""
    scenes = SCENES.model_copy(update={"frames": 5})
    made: list[weakref.ref[ExposedFrame]] = []
    alive = []

    def watched() -> Iterator[ExposedFrame]:
        for frame in record_scene(SceneTask("train", 0), scenes, CAMERA):
            made.append(weakref.ref(frame))
            alive.append(sum(ref() is not None for ref in made))
            yield frame

    write_sequence(tmp_path, "train", "a", watched(), describe_scenes(scenes, CAMERA))
    assert len(alive) == 5
    assert max(alive) <= 2


def test_rendered_scenes_validate(written: Path) -> None:
    assert validate(written) == []


def test_sequence_names_are_unique_across_splits() -> None:
    names = [task.sequence for task in scene_tasks(SceneSettings())]
    assert len(names) == len(set(names)) == 32


def test_an_interrupted_simulation_continues_to_the_same_bytes(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"

    def fails_on_the_third(task: SceneTask, *rest: object) -> Iterator[ExposedFrame]:
        for i, frame in enumerate(record_scene(task, SCENES, CAMERA)):
            if task.split == "val" and i == 2:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(recording, "record_scene", fails_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(SCENES, CAMERA, root)
    assert sorted(p.name for p in (root / "train").iterdir()) == ["train_0000", "train_0001"]
    assert not list((root / "val").iterdir()), "nothing half-written"
    with pytest.raises(DataFormatError, match=r"no dataset\.yaml.*not finished"):
        open_dataset(root)
    stamp = (root / "train" / "train_0000").stat().st_mtime_ns
    new_sequence(root, "val", "val_0000").__enter__()  # a writer that is killed leaves this
    monkeypatch.undo()
    calls: list[tuple[int, int]] = []
    write_scenes(SCENES, CAMERA, root, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert (root / "train" / "train_0000").stat().st_mtime_ns == stamp, "not rendered again"
    assert [folder.name for folder in (root / "val").iterdir()] == ["val_0000"]
    assert contents(root) == contents(written)


def test_another_simulation_is_refused(written: Path) -> None:
    before = contents(written)
    for scenes, camera in (
        (SCENES.model_copy(update={"seed": 1}), CAMERA),
        (SCENES, CameraSettings(threshold=1.0)),
        (SCENES, CameraSettings(noise=0.1)),
    ):
        with pytest.raises(DataFormatError, match="holds another dataset"):
            write_scenes(scenes, camera, written)
    assert contents(written) == before


def test_folders_of_other_content_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(DataFormatError, match=r"something else.*thesis\.tex"):
        write_scenes(SCENES, CAMERA, tmp_path)
    with pytest.raises(DataFormatError, match="must be a folder"):
        write_scenes(SCENES, CAMERA, tmp_path / "thesis.tex")


def test_frames_that_do_not_divide_into_the_spike_grid_are_refused(tmp_path: Path) -> None:
    scenes = SCENES.model_copy(update={"width": 66})
    with pytest.raises(ConfigError, match="does not divide"):
        write_scenes(scenes, CameraSettings(downscale=4), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_two_writers_of_one_sequence_leave_one_whole(written: Path, tmp_path: Path) -> None:
    info = describe_scenes(SCENES, CAMERA)
    frames = list(record_scene(SceneTask("train", 0), SCENES, CAMERA))

    def while_another_finishes() -> Iterator[ExposedFrame]:
        write_sequence(tmp_path, "train", "a", frames, info)
        yield from frames

    try:
        write_sequence(tmp_path, "train", "a", while_another_finishes(), info)
    finally:
        assert len(list((tmp_path / "train" / "a" / "spike").iterdir())) == 3
