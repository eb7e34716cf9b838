"""In every layout: clean data give no finding, and each planted defect is found where it is."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.datasets.layout_trees import (
    RGB_FOLDERS,
    WITH_SPIKES_AND_FRAMES,
    WRITERS,
    Array,
    Scene,
    Tree,
    pack,
    unpack,
)
from tests.simulate.scene_folder import write_scenes
from vrtspike.config.camera import CameraSettings
from vrtspike.config.scenes import SceneSettings
from vrtspike.datasets.findings import Finding, Validation
from vrtspike.datasets.index import open_dataset
from vrtspike.datasets.validate import check_dataset
from vrtspike.report.validation import write_validation_report
from vrtspike.storage.folder import Folder

FAST = Scene(speed=0.3)
LARGE = replace(FAST, frame=(96, 128))
"""Enough pixels to tell steps apart in spite of the noise of counting spikes."""
SPIKES = ["own", "align", "spk_gopro", "spk_x4k_33", "s_sdm"]
"""One of every way to store spikes; the other layouts differ in a folder's name or a number."""
FRAMES = [*SPIKES, "gopro", "dvd", "reds"]
STREAMS = ["align", "align_late", "spk_x4k_33", "spk_x4k_65"]
OWN_FILES = [name for name in WITH_SPIKES_AND_FRAMES if name not in STREAMS]
WITH_FRAMES = [name for name in WRITERS if name != "spikecv"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tree]:
    """Return a function that writes a clean tree, once each; they must not be changed."""
    where = "Daten für Tests"
    return cache(lambda name: WRITERS[name](tmp_path_factory.mktemp("a") / where, scene=FAST))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tree]:
    """Return a function that writes a clean tree of larger frames, once each."""
    return cache(lambda name: WRITERS[name](tmp_path_factory.mktemp("large") / "a", scene=LARGE))


@pytest.fixture
def spoil_large(large: Callable[[str], Tree], tmp_path: Path) -> Callable[[str], Tree]:
    """Return a function that gives a copy of a tree of larger frames, to be spoilt."""
    return lambda name: copied(large(name), tmp_path)


@pytest.fixture
def spoil(clean: Callable[[str], Tree], tmp_path: Path) -> Callable[[str], Tree]:
    """Return a function that gives a copy of a clean tree, to be spoilt."""
    return lambda name: copied(clean(name), tmp_path)


def copied(tree: Tree, folder: Path) -> Tree:
    return replace(tree, root=Path(shutil.copytree(tree.root, folder / "copy ü")))


def check(tree: Tree) -> Validation:
    return check_dataset(open_dataset(tree.root, tree.layout))


def one(tree: Tree) -> Finding:
    """Return the only finding."""
    findings = check(tree).findings
    assert len(findings) == 1, findings
    return findings[0]


def kinds(tree: Tree) -> set[str]:
    return {finding.kind for finding in check(tree).findings}


def files(tree: Tree, kind: str) -> list[Path]:
    """Return the files of a kind of the first sequence, in order, in any layout."""
    (split, sequence), *_ = tree.sequences
    clip, _ = open_dataset(tree.root, tree.layout).inspect(split, sequence)
    if kind == "spike":
        return [tree.root / file for file in clip.steps]
    return [tree.root / str(getattr(frame, kind)) for frame in clip.frames]


def change_spikes(tree: Tree, change: Callable[[Array], Array], together: bool = False) -> None:
    """Change the spikes of the first sequence: file by file, or the files as one stream."""
    (split, sequence), *_ = tree.sequences
    size = tree.sequences[split, sequence].spikes[0].shape[1:]
    paths = files(tree, "spike")
    streams = [unpack(path.read_bytes(), *size) for path in paths]
    if together:
        changed = np.split(change(np.concatenate(streams)), len(paths))
    else:
        changed = [change(stream) for stream in streams]
    for path, stream in zip(paths, changed, strict=True):
        path.write_bytes(pack(stream))


@pytest.mark.parametrize("name", WRITERS)
def test_clean_data_give_no_finding(name: str, clean: Callable[[str], Tree]) -> None:
    tree = clean(name)
    found = check(tree)
    assert found.findings == ()
    assert {(s.split, s.sequence): s.frames for s in found.sequences} == {
        key: len(written.names) for key, written in tree.sequences.items()
    }
    measured = [s.agreement is not None for s in found.sequences]
    assert measured == [name in WITH_SPIKES_AND_FRAMES] * 2


@pytest.mark.parametrize("speed", [0.0, 0.12])
@pytest.mark.parametrize("name", WITH_SPIKES_AND_FRAMES)
def test_still_and_slow_scenes_give_no_finding(name: str, speed: float, tmp_path: Path) -> None:
    assert check(WRITERS[name](tmp_path, scene=Scene(speed=speed))).findings == ()


@pytest.mark.parametrize("camera", [{}, {"threshold": 1.0}, {"noise": 0.02}, {"downscale": 2}])
def test_what_simulate_makes_gives_no_finding(camera: dict[str, Any], tmp_path: Path) -> None:
    scenes = SceneSettings(sequences={"train": 1, "val": 1}, frames=3, height=48, width=64)
    write_scenes(scenes, CameraSettings(**camera), tmp_path / "set")
    assert check(Tree(tmp_path / "set", "vrtspike", {})).findings == ()


@pytest.mark.parametrize("shade", [0, 3, 128, 255])
def test_pictures_without_any_detail_give_no_finding(shade: int, tmp_path: Path) -> None:
    tree = WRITERS["own"](tmp_path, scene=FAST)
    charge = np.zeros((24, 32))
    for path in sorted(tmp_path.rglob("*.png")):
        Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(path)
    for path in sorted(tmp_path.rglob("*.dat")):
        spikes = np.zeros((40, 24, 32), bool)
        for step in spikes:
            charge += shade / 255 / 2
            step[:] = charge >= 1
            charge -= step
        path.write_bytes(pack(spikes))
    assert check(tree).findings == () or kinds(tree) == {"shared-sequence"}


TURNS = {
    "upside down": lambda spikes: spikes[:, ::-1],
    "mirrored": lambda spikes: spikes[:, :, ::-1],
    "rotated by 180 degrees": lambda spikes: spikes[:, ::-1, ::-1],
    "bits swapped": lambda spikes: spikes.reshape(-1, 8)[:, ::-1].reshape(spikes.shape),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", SPIKES)
def test_turned_streams(name: str, turn: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    change_spikes(tree, TURNS[turn])
    finding = one(tree)
    assert finding.kind == "orientation"
    assert turn in finding.message
    assert finding.facts["best_turn"] == turn
    assert finding.sequence == "/".join(next(iter(tree.sequences)))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [-8, -4, 4, 8])
@pytest.mark.parametrize("name", [*SPIKES[:-1], "align_late", "spk_x4k_65"])
def test_a_stream_that_is_early_or_late(
    name: str, steps: int, spoil_large: Callable[[str], Tree]
) -> None:
    tree = spoil_large(name)
    change_spikes(tree, lambda stream: np.roll(stream, steps, axis=0), together=True)
    found = {finding.kind: finding for finding in check(tree).findings}
    assert set(found) <= {"exposure-shift", "target-shift"}
    exposure = found["exposure-shift"]
    best = exposure.facts["exposure_best_offset_steps"]
    assert isinstance(best, int)
    assert abs(best - steps) <= 1
    assert f"{best:+d} steps" in exposure.message


@pytest.mark.parametrize("steps", [-8, -4, 4, 8])
def test_guard_steps_tell_of_a_shift_in_each_file(steps: int, spoil: Callable[[str], Tree]) -> None:
    tree = spoil("s_sdm")
    change_spikes(tree, lambda stream: np.roll(stream, steps, axis=0))
    found = {finding.kind: finding for finding in check(tree).findings}
    best = found["exposure-shift"].facts["exposure_best_offset_steps"]
    assert abs(float(best) - steps) <= 1


@pytest.mark.parametrize("steps", [-8, 8])
@pytest.mark.parametrize("name", ["own", "align"])
def test_a_target_that_is_another_instant(
    name: str, steps: int, spoil_large: Callable[[str], Tree]
) -> None:
    tree = spoil_large(name)
    path = tree.root / "dataset.yaml"
    values = yaml.safe_load(path.read_text())
    values["target_step"] += steps
    path.write_text(yaml.safe_dump(values))
    found = check(tree).findings
    assert {finding.kind for finding in found} == {"target-shift"}
    for finding in found:
        assert abs(float(finding.facts["target_best_offset_steps"]) + steps) <= 2


def test_a_time_offset_that_is_declared_is_none_to_be_found(
    spoil: Callable[[str], Tree],
) -> None:
    tree = spoil("own")
    for name in tree.sequences:
        change_spikes(
            replace(tree, sequences={name: tree.sequences[name]}),
            lambda stream: np.roll(stream, 5, axis=0),
            together=True,
        )
    assert kinds(tree) >= {"exposure-shift"}
    path = tree.root / "dataset.yaml"
    path.write_text(path.read_text().replace("spike:\n", "spike:\n  time_offset_steps: 5\n"))
    assert check(tree).findings == ()


@pytest.mark.parametrize("threshold", [0.8, 5.0])
@pytest.mark.parametrize("name", ["own", "align"])
def test_a_wrong_threshold(name: str, threshold: float, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    path = tree.root / "dataset.yaml"
    path.write_text(path.read_text().replace("threshold: 2.0", f"threshold: {threshold}"))
    found = check(tree).findings
    assert {finding.kind for finding in found} == {"brightness"}
    assert found[0].facts["brightness_ratio"] == pytest.approx(threshold / 2, rel=0.02)


@pytest.mark.parametrize("threshold", [1.0, 4.0])
@pytest.mark.parametrize("name", SPIKES)
def test_a_camera_of_another_threshold(name: str, threshold: float, tmp_path: Path) -> None:
    tree = WRITERS[name](tmp_path, scene=replace(FAST, threshold=threshold))
    path = tree.root / "dataset.yaml"
    if path.exists():
        path.write_text(path.read_text().replace(f"threshold: {threshold}", "threshold: 2.0"))
    assert kinds(tree) == {"brightness"}


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("name", SPIKES)
def test_dead_streams(name: str, value: int, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    path = files(tree, "spike")[-1]
    path.write_bytes(bytes([value]) * path.stat().st_size)
    finding = one(tree)
    assert (finding.kind, finding.where) == ("dead-spikes", str(path))
    assert ("no pixel" if value == 0 else "every pixel") in finding.message


@pytest.mark.parametrize("name", ["own", "spk_gopro", "s_sdm", "spk_x4k_33", "align", "spikecv"])
@pytest.mark.parametrize("change", ["cut", "cut by steps", "longer", "empty"])
def test_streams_of_another_size(name: str, change: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    path = files(tree, "spike")[-1]
    content = path.read_bytes()
    step = 24 * 32 // 8
    spoilt = {
        "cut": content[:-7],
        "cut by steps": content[: -5 * step],
        "longer": content + bytes(5),
        "empty": b"",
    }[change]
    path.write_bytes(spoilt)
    if change == "cut by steps" and name in ("spk_x4k_33", "align", "spikecv"):
        return  # whole steps of a stream of its own length: see the test below
    finding = one(tree)
    assert (finding.kind, finding.where) == ("stream-size", str(path))
    assert f"got {len(spoilt)} bytes" in finding.message


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_do_not_reach_over_their_frames(
    name: str, spoil: Callable[[str], Tree]
) -> None:
    tree = spoil(name)
    (path,) = files(tree, "spike")
    path.write_bytes(path.read_bytes()[: 96 * 70])
    finding = one(tree)
    assert (finding.kind, finding.where) == ("stream-size", str(path))
    assert "the stream of 70 steps does not reach over" in finding.message


@pytest.mark.parametrize("kind", ["blurred", "sharp"])
@pytest.mark.parametrize("name", FRAMES)
def test_spoilt_images(name: str, kind: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    paths = files(tree, kind)
    with Image.open(paths[0]) as image:
        size = image.size
    cut, other, deep = paths[-1], paths[-1], paths[-1]
    for path, write, says in (
        (cut, lambda p: p.write_bytes(p.read_bytes()[:200]), "unreadable image"),
        (other, lambda p: Image.new("RGB", (size[0] - 2, size[1])).save(p), "another size"),
        (deep, lambda p: Image.new("I;16", size).save(p), "unsupported kind"),
    ):
        content = path.read_bytes()
        write(path)
        finding = one(tree)
        assert (finding.kind, finding.where) == ("image", str(path))
        assert says in finding.message
        path.write_bytes(content)


@pytest.mark.parametrize("name", FRAMES)
def test_blurred_frames_that_are_the_truth(name: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    pairs = list(zip(files(tree, "blurred"), files(tree, "sharp"), strict=True))
    for blurred, sharp in pairs:
        shutil.copy(blurred, sharp)
    found = check(tree).findings
    assert {f.kind for f in found} <= {"blurred-is-sharp", "target-shift"}
    assert [f.where for f in found if f.kind == "blurred-is-sharp"] == [str(b) for b, _ in pairs]


@pytest.mark.parametrize("name", FRAMES)
def test_blurred_and_sharp_exchanged(name: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    for blurred, sharp in zip(files(tree, "blurred"), files(tree, "sharp"), strict=True):
        spare = blurred.with_suffix(".spare")
        blurred.rename(spare)
        sharp.rename(blurred)
        spare.rename(sharp)
    assert one(tree).kind == "swapped-frames"


KINDS_OF_FILES = [
    (name, kind)
    for name in FRAMES
    for kind in ("blurred", "sharp", *(["spike"] if name in OWN_FILES else []))
    # Which frames of a clip of X4K have a blurred one is nowhere said.
    if (name.startswith("spk_x4k"), kind) != (True, "blurred")
]


@pytest.mark.parametrize(("name", "kind"), KINDS_OF_FILES)
def test_missing_frames(name: str, kind: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    paths = files(tree, kind)
    paths[1].unlink()
    (finding,) = (f for f in check(tree).findings if f.kind != "align-log")
    assert finding.kind == "missing"
    assert finding.where.endswith(f"/{kind}")
    assert f"no {kind} of {paths[1].stem} " in finding.message
    for path in paths:
        path.unlink(missing_ok=True)
    assert kinds(tree) & {"missing", "image"}


@pytest.mark.parametrize("name", [name for name in SPIKES if name in OWN_FILES])
@pytest.mark.parametrize("kind", ["blurred", "sharp", "spike"])
def test_extra_frames(name: str, kind: str, spoil: Callable[[str], Tree]) -> None:
    if (name, kind) == ("s_sdm", "sharp"):
        return  # sharp frames of other instants belong to the layout
    tree = spoil(name)
    path = files(tree, kind)[-1]
    shutil.copy(path, path.with_stem("999999"))
    finding = next(f for f in check(tree).findings if f.kind == "extra")
    assert finding.where.endswith(f"/{kind}")
    assert "999999" in finding.message


def test_no_blurred_frame_at_all(spoil: Callable[[str], Tree]) -> None:
    tree = spoil("spk_gopro")
    shutil.rmtree(tree.root / "train" / "GOPR0372_07_00" / "blur")
    assert "missing" in kinds(tree)


@pytest.mark.parametrize("name", WRITERS)
def test_sequences_in_two_splits(name: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    (split, sequence), (other, _) = tree.sequences
    if name == "spikecv":
        shutil.copy(tree.root / "roh daten" / "a.dat", tree.root / "set ü" / "b copy.dat")
        finding = one(tree)
        assert {finding.sequence, finding.facts["also"]} == {f"{split}/{sequence}", "set ü/b copy"}
        return
    renamed, last = "GOPR9999_07_11", sequence.split("_", 1)[1] if "occ" in sequence else sequence
    for folder in [path for path in tree.root.rglob("*") if path.name == last]:
        parent = str(folder.parent.relative_to(tree.root))
        if parent.startswith(split):
            shutil.copytree(folder, tree.root / parent.replace(split, other) / renamed)
    for log in tree.root.rglob(f"{renamed}/align.csv"):
        log.write_text(log.read_text().replace(sequence, renamed))
    finding = one(tree)
    assert finding.kind == "shared-sequence"
    assert "is also in split" in finding.message
    places = {finding.sequence, str(finding.facts["also"])}
    assert f"{split}/{sequence}" in places
    assert any(place.endswith(renamed) for place in places)


def test_the_facts_are_json_and_hold_the_best_offset(spoil_large: Callable[[str], Tree]) -> None:
    tree = spoil_large("spk_gopro")
    change_spikes(tree, lambda stream: np.roll(stream, 6, axis=0), together=True)
    facts = json.loads(json.dumps(check(tree).facts()))
    assert facts["kinds"]["exposure-shift"] == 1
    finding = next(f for f in facts["findings"] if f["kind"] == "exposure-shift")
    assert finding["facts"]["exposure_best_offset_steps"] in (5, 6, 7)
    by_name = {s["sequence"]: s for s in facts["sequences"]}
    assert by_name["GOPR0372_07_00"]["exposure_best_offset_steps"] in (5, 6, 7)
    assert abs(by_name["GOPR0384_11_00"]["exposure_best_offset_steps"]) <= 1


def test_files_on_both_sides_of_a_gap_are_no_one_stream(spoil_large: Callable[[str], Tree]) -> None:
    tree = spoil_large("own")
    for path in tree.root.rglob("000001.*"):
        path.unlink()
    assert kinds(tree) == {"gap"}
    change_spikes(tree, TURNS["mirrored"])
    assert kinds(tree) == {"gap", "orientation"}, "the frames that are there are checked"
    path = tree.root / "dataset.yaml"
    path.write_text(path.read_text().replace("spike:\n", "spike:\n  time_offset_steps: 5\n"))
    found = check(tree).findings
    assert {finding.kind for finding in found} == {"layout"}
    assert "do not follow one another" in found[0].message
    assert found[0].where.startswith(str(tree.root))


@pytest.mark.parametrize("name", ["own", "align", "spk_gopro", "spk_x4k_33"])
def test_a_store_is_checked_as_a_folder_is(name: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    remote = Folder.at(f"memory://{tree.root.parent.name}/{name}")
    path = files(tree, "sharp")[1]
    path.write_bytes(b"")
    for file in Folder.at(tree.root).listing():
        remote.write(file, (tree.root / file).read_bytes())
    (finding,) = check_dataset(open_dataset(str(remote), tree.layout)).findings
    assert finding.kind == "image"
    assert finding.where == f"{remote}/{path.relative_to(tree.root)}"
    assert "/tmp" not in finding.message


@pytest.mark.parametrize("name", RGB_FOLDERS)
def test_frames_alone_are_told_apart_too(name: str, spoil: Callable[[str], Tree]) -> None:
    tree = spoil(name)
    paths = files(tree, "sharp")
    paths[0].write_bytes(b"")
    finding = one(tree)
    assert (finding.kind, finding.where) == ("image", str(paths[0]))


def test_spikes_that_cannot_be_read(
    clean: Callable[[str], Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    tree = clean("own")
    monkeypatch.setattr(np, "memmap", refuse)
    found = check(tree).findings
    assert {f.kind for f in found} == {"spikes"}
    assert len(found) == 8
    assert "Permission denied" in found[0].message


def test_a_spike_grid_that_no_integer_lays_over_the_frames(spoil: Callable[[str], Tree]) -> None:
    tree = spoil("own")
    path = tree.root / "dataset.yaml"
    values = yaml.safe_load(path.read_text())
    values["spike"] |= {"height": 16, "width": 48}
    path.write_text(yaml.safe_dump(values))
    found = check(tree).findings
    assert [finding.kind for finding in found] == ["layout", "layout"]
    assert (
        "no whole number of times coarser than the frames: got spikes of 16x48 and frames of "
        in (found[0].message)
    )


def test_one_name_in_two_splits_is_none_of_one_content(spoil: Callable[[str], Tree]) -> None:
    tree = spoil("own")
    (tree.root / "val" / "zwei").rename(tree.root / "val" / "straße 1")
    assert check(tree).findings == (), "their frames were compared"
    for path in (tree.root / "val").rglob("*.dat"):
        path.write_bytes(bytes(path.stat().st_size))
    for path in (tree.root / "val").rglob("*.png"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path)
    finding = one(tree)
    assert (finding.kind, finding.sequence) == ("shared-sequence", "val/straße 1")
    assert "could not be compared" in finding.message


def test_a_recording_is_checked_in_bounded_memory(
    spoil: Callable[[str], Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings of 20 000 steps of 24x32, 15 MB as bool, read in pieces of 64 KiB."""
    tree = spoil("spikecv")
    for path in files(tree, "spike"):
        path.write_bytes(path.read_bytes()[: 20 * 96] * 1000)
    monkeypatch.setattr("vrtspike.spikes.stream.PIECE_BYTES", 1 << 16)
    dataset = open_dataset(tree.root, tree.layout)
    tracemalloc.start()
    found = check_dataset(dataset)
    write_validation_report(tree.root.parent / "page.html", dataset, found)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.findings == ()
    assert most < 4_000_000
