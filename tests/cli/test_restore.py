"""`vrtspike restore`: files in, files out; what cannot be done is one line and a status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.restoration.clip_files import (
    SEEN,
    SETTINGS,
    Placed,
    everything,
    images_of,
    whole,
    write_clip,
)
from tests.video.video_files import Track, encode, moving, packets, psnr
from vrtspike.cli.app import app
from vrtspike.cli.restore import load_weights
from vrtspike.config.loader import dump_config, load_config
from vrtspike.model import build_model
from vrtspike.restoration.output import RECORD
from vrtspike.restoration.restorer import Restorer
from vrtspike.storage.folder import sha256_of
from vrtspike.video.inspect import inspect_video_file, iter_frames

CAMERA = (
    *("--height", 16, "--width", 24, "--threshold", 3, "--steps-per-frame", 8),
    *("--exposure", "1:7"),
)
WINDOWS = ("--tile-frames", 4, "--overlap-frames", 2, "--overlap", 4)
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process on one machine needs no Ray: here it cannot start."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, Path]:
    """Return run folders of untrained models, with spikes and without."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for name, fusion in (("fused", "temporal"), ("baseline", "none")):
        config = load_config(repository / "configs" / "debug.yaml", [f"model.fusion={fusion}"])
        found[name] = root / name
        (root / name / "export").mkdir(parents=True)
        save_file(build_model(config.model).state_dict(), root / name / "export/model.safetensors")
        (root / name / "config.yaml").write_text(dump_config(config))
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Placed]:
    """Let every run hold the stand-in, that of `baseline` one without spikes; return them."""
    models = {"fused": Placed(), "baseline": Placed()}

    def load(run: Path, *, config: Path | None = None) -> Restorer:
        if run.name not in models:
            return whatever_else(run, config=config)
        return Restorer(models[run.name], SEEN if run.name == "fused" else None)

    whatever_else = Restorer.load
    monkeypatch.setattr(Restorer, "load", load)
    return models


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Run:
    """Return a function that restores `in` with `spikes` (or without) to `out`."""

    def call(*asked: object, out: str = "out", name: str = "fused", footage: str = "in") -> Result:
        words = ["restore", "--weights", runs[name], "--input", tmp_path / footage]
        words += ["--out", tmp_path / out, *WINDOWS, "--device", "cpu", "--threads", 1]
        if name == "fused":
            words += ["--spikes", tmp_path / "spikes", *CAMERA]
        return CliRunner().invoke(app, [str(word) for word in (*words, *asked)])

    return call


def refused(result: Result, status: int = 2) -> str:
    """Return the one line with which a command was refused."""
    progress = ("restore: ", "look at the clips: ")
    lines = [line for line in result.stderr.splitlines() if not line.startswith(progress)]
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output and len(lines) == 1, lines
    assert lines[0].startswith("vrtspike: ")
    return lines[0]


@pytest.mark.usefixtures("quick")
def test_a_folder_of_clips_becomes_folders_of_images(run: Run, tmp_path: Path) -> None:
    written = {name: write_clip(tmp_path, count, name) for name, count in (("a", 7), ("b", 1))}
    result = run("--json", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    for name, clip in written.items():
        np.testing.assert_array_equal(images_of(tmp_path / "out" / name), whole(clip, SETTINGS))
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["a", "b"] and "7 frames" in lines[0]
    assert lines[-1].startswith("2 clips restored in ")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["status"] == 0 and found["seconds"] > 0
    clips = [(clip["name"], clip["state"], clip["frames"]) for clip in found["clips"]]
    assert clips == [("a", "done", 7), ("b", "done", 1)]


def test_the_same_again_computes_nothing(
    run: Run, quick: dict[str, Placed], tmp_path: Path
) -> None:
    write_clip(tmp_path, 5)
    run(footage="in/clip")
    before, windows = everything(tmp_path), len(quick["fused"].seen)
    for again in ((), ("--overwrite",), ("--memory", "64GB")):
        result = run(*again, footage="in/clip")
        assert result.exit_code == 0 and "clip: restored already: " in result.stdout
        assert "0 clips restored" in result.stdout
    assert len(quick["fused"].seen) == windows and everything(tmp_path) == before


def test_a_video_becomes_a_video_with_its_times_and_its_sound(
    run: Run, quick: dict[str, Placed], tmp_path: Path
) -> None:
    times = [40 * n + (9 * n) % 25 for n in range(10)]
    source = encode(tmp_path / "in.mp4", moving(10), milliseconds=times, tracks=[Track()])
    for out in ("out.mp4", "out.mov"):
        assert run(out=out, name="baseline", footage="in.mp4").exit_code == 0
        info = inspect_video_file(tmp_path / out)
        assert info.times is not None
        assert [1000 * t * info.time_base for t in info.times] == times
        assert [p for _, p in packets(tmp_path / out)] == [p for _, p in packets(source)]
    assert run(name="baseline", footage="in.mp4").exit_code == 0
    assert psnr(list(iter_frames(tmp_path / "out.mov")), list(images_of(tmp_path / "out"))) > 37
    refusal = refused(run("--fps", 30, out="other.mp4", name="baseline", footage="in.mp4"))
    assert "keep the times of their video" in refusal


def test_images_become_a_video_at_a_rate_that_is_given(
    run: Run, quick: dict[str, Placed], tmp_path: Path
) -> None:
    write_clip(tmp_path, 4)
    line = refused(run(out="out.mkv", footage="in/clip"))
    assert "how many frames a second" in line and "--fps" in line and not quick["fused"].seen
    assert run("--fps", 29.97, "--format", "mp4").exit_code == 0
    info = inspect_video_file(tmp_path / "out" / "clip.mp4")
    assert (info.frames, info.rate) == (4, pytest.approx(29.97))


def test_a_clip_that_fails_is_named_and_the_others_are_done(
    run: Run, quick: dict[str, Placed], tmp_path: Path
) -> None:
    for seed, name in enumerate("abc"):
        write_clip(tmp_path, 9, name, seed)
    content = (tmp_path / "in/b/005.png").read_bytes()
    (tmp_path / "in/b/005.png").write_bytes(content[:200])
    result = run("--json", tmp_path / "found.json")
    line = refused(result, 1)
    assert line.startswith("vrtspike: b: unreadable image") and "in/b/005.png" in line
    assert "2 clips restored" in result.stdout and "1 failed" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name[0] != ".") == ["a", "c"]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["status"] == 1
    assert [clip["state"] for clip in found["clips"]] == ["done", "failed", "done"]
    (tmp_path / "in/b/005.png").write_bytes(content)
    quick["fused"].seen.clear()
    assert run().exit_code == 0
    assert len(quick["fused"].seen) == len(SETTINGS.windows(9))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b", "c"]


def test_a_stop_is_said_and_goes_on_later(
    run: Run, quick: dict[str, Placed], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path, 13)
    quick["fused"].stop_after = 3
    result = run(footage="in/clip")
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert not (tmp_path / "out").exists()
    quick["fused"].stop_after = None
    assert run(footage="in/clip").exit_code == 0
    assert len(quick["fused"].seen) < 3 + len(SETTINGS.windows(13))
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, SETTINGS))


@pytest.mark.parametrize("name", ["fused", "baseline"])
def test_a_trained_model_restores_with_and_without_spikes(
    run: Run, tmp_path: Path, name: str
) -> None:
    clip = write_clip(tmp_path, 3)
    more = ("--exposure", "0:8") if name == "fused" else ()
    result = run("--tile", 512, *more, name=name, footage="in/clip")
    assert result.exit_code == 0, result.output
    # Training starts from the identity, so an untrained model returns its input.
    np.testing.assert_array_equal(images_of(tmp_path / "out"), clip.frames)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["settings"]["precision"] == "float32" and record["frames"] == 3


@pytest.mark.usefixtures("quick")
def test_spikes_are_given_whole_and_to_models_that_take_them(
    run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path, 3)
    given = ("--spikes", clip.stream, *CAMERA)
    line = refused(run(*given, name="baseline", footage="in/clip"))
    assert "takes no spikes" in line and "--spikes" in line
    given = ("--spikes", clip.stream, "--height", 16, "--threshold", 2)
    line = refused(run(*given, name="baseline", footage="in/clip"))
    assert "--height, --threshold" in line and "--width, --steps-per-frame" in line
    lacking = ["restore", "--weights", runs["fused"], "--input", clip.place, "--out"]
    line = refused(CliRunner().invoke(app, [*map(str, lacking), str(tmp_path / "out")]))
    assert "and there are none" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--memory", "8 gigs"), "not an amount of memory [--memory]: got 8 gigs"),
        (("--exposure", "7"), "not a range [--exposure]"),
        (("--format", "mp4", "--out", "x.mkv"), "another format"),
        (("--out", "x.avi"), "names no video that can be written"),
        (("--tile", 16, "--overlap", 12), "tiles share more than they keep"),
        (("--overlap-frames", 3), "tiles share more than they keep"),
        (("--input", "none"), "no such input"),
        (("--spikes", "none"), "no such spikes"),
        (("--weights", "none"), "no such run folder or weights"),
        (("--device", "cuda"), "there is no GPU here"),
        (("--workers", 99), "no room for so many workers"),
        (("--memory", "8GB", "--tile", 64), "--memory chooses the tile, and --tile too"),
        (("--out", "in/clip"), "the output lies in the input"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_cannot_be_asked_is_refused_before_anything_is_done(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[object, ...],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    write_clip(tmp_path, 7)
    before = everything(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert message in refused(run(*asked, footage="in/clip"))
    assert everything(tmp_path) == before


def test_weights_that_do_not_fit_are_refused(
    run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    write_clip(tmp_path, 3)
    mixed, broken = tmp_path / "mixed", tmp_path / "broken"
    shutil.copytree(runs["fused"], mixed)
    shutil.copy(runs["baseline"] / "export/model.safetensors", mixed / "export")
    line = refused(run("--weights", mixed, footage="in/clip"))
    assert "weights are not those" in line and str(mixed) in line
    shutil.copytree(runs["fused"], broken)
    file = broken / "export/model.safetensors"
    name = next(name for name in load_file(file) if name.endswith("conv_last.bias"))
    save_file(load_file(file) | {name: torch.full((3,), float("nan"))}, file)
    asked = ("--weights", broken, "--tile", 512, "--exposure", "0:8")
    line = refused(run(*asked, footage="in/clip"), 1)
    assert "clip: " in line and "not finite" in line and not (tmp_path / "out").exists()


def test_without_weights_the_packaged_ones_restore(tmp_path: Path, packaged_weights: Path) -> None:
    clip = write_clip(tmp_path, 3)
    words = ["restore", "--input", clip.place, "--device", "cpu", "--threads", 1, "--out"]
    spikes = ("--spikes", clip.stream, *CAMERA, "--exposure", "0:8")

    def call(*more: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in (*words, *more)])

    for out, asked, name in (
        ("fused", spikes, "small"),
        ("plain", ("--weights", "small-no-spike"), "small-no-spike"),
    ):
        result = call(tmp_path / out, *asked)
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / out / RECORD).read_text())
        assert sha256_of(packaged_weights / f"{name}.safetensors") in json.dumps(record)
        assert (images_of(tmp_path / out) != clip.frames).mean() > 0.2
    line = refused(call(tmp_path / "none"))
    assert "Fix: give --spikes, or --weights small-no-spike" in line
    line = refused(call(tmp_path / "none", "--weights", "large"))
    assert "no such run folder or weights" in line
    assert line.endswith("or take packaged weights: small, small-no-spike")
    assert not (tmp_path / "none").exists()


def test_a_path_is_the_folder_and_a_name_the_packaged_weights(
    runs: dict[str, Path],
    tmp_path: Path,
    packaged_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs["fused"], "small")
    for given, file in (
        ("small", packaged_weights / "small.safetensors"),
        ("./small", runs["fused"] / "export/model.safetensors"),
    ):
        assert load_weights(given, None)[1] == sha256_of(file)


@pytest.mark.slow
def test_a_process_that_is_killed_loses_no_part_that_was_done(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path, 100)
    words = ["restore", "--weights", runs["fused"], "--input", clip.place, "--spikes", clip.stream]
    words += ["--out", tmp_path / "out", *CAMERA, "--exposure", "0:8"]
    words += [*WINDOWS, "--device", "cpu", "--threads", 1]
    command = [sys.executable, "-m", "vrtspike", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob(".restoring*/done-*.json")):
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "out").exists()
    kept = {
        file.name: file.stat().st_mtime_ns for file in tmp_path.glob(".restoring*/frames/*.png")
    }
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    np.testing.assert_array_equal(images_of(tmp_path / "out"), clip.frames)
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")}
    assert {name for name, when in kept.items() if times[name] == when}, "all was done again"
    assert len(times) == 100 > len(kept)
