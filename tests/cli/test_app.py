"""The command: what it refuses, in one line and with status 2, and what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vrtspike.cli.app import app
from vrtspike.datasets.info import DatasetInfo, FrameInfo, SpikeInfo, write_info
from vrtspike.errors import DataFormatError
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.stream import SpikeStream

SIZE, STEPS, FRAMES = 16, 8, 4


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that a refusal comes before Ray is started: here it cannot start."""
    monkeypatch.setenv("RAY_ADDRESS", "no-cluster-here:1")
    monkeypatch.setitem(sys.modules, "ray", None)


def refused(*arguments: object) -> str:
    """Run a command that must be refused; return its one line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def write_dataset(root: Path, split: str = "train", sequence: str = "a") -> Path:
    """Write a dataset of one sequence of random frames and spikes."""
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        for kind in ("blurred", "sharp"):
            folder = root / split / sequence / kind
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:06d}.png")
        folder = root / split / sequence / "spike"
        folder.mkdir(parents=True, exist_ok=True)
        write_dat(folder / f"{index:06d}.dat", rng.random((STEPS, SIZE, SIZE)) < 0.3)
    info = DatasetInfo(
        spike=SpikeInfo(height=SIZE, width=SIZE, rate_hz=100.0, threshold=2.0),
        frame=FrameInfo(height=SIZE, width=SIZE),
        steps_per_frame=STEPS,
        exposure=(0, STEPS),
        target_step=STEPS // 2,
        source="random numbers",
    )
    write_info(root / "dataset.yaml", info)
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a dataset folder with a train and a val split."""
    write_dataset(tmp_path / "set", "val", "b")
    return write_dataset(tmp_path / "set")


@pytest.fixture
def config(tmp_path: Path, dataset: Path) -> Path:
    """Return a small configuration of that dataset."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"run: {{root: {tmp_path}/runs}}\n"
        f"data: {{source: {dataset}, shards: {tmp_path}/shards, frames: 2, crop: 16}}\n"
        "loss: {vgg: 0}\ntrain: {gpu: false, batch: 1}\n"
    )
    return path


@pytest.mark.parametrize("command", ["simulate", "prepare", "train", "evaluate", "demo"])
def test_unknown_key(config: Path, command: str) -> None:
    message = refused(command, "--config", config, "train.stepz=3")
    assert "train.stepz" in message and "did you mean train.steps?" in message


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate", "demo"])
def test_missing_configuration(tmp_path: Path, command: str) -> None:
    assert "no such configuration file" in refused(command, "--config", tmp_path / "none.yaml")


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate"])
def test_missing_dataset_folder(config: Path, tmp_path: Path, command: str) -> None:
    nowhere = tmp_path / "nowhere"
    message = refused(command, "--config", config, f"data.source={nowhere}", *models(command))
    assert str(nowhere) in message and "Fix:" in message


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate"])
def test_dataset_that_is_a_file(config: Path, command: str) -> None:
    message = refused(command, "--config", config, f"data.source={config}", *models(command))
    assert str(config) in message and "got a file" in message


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate"])
def test_empty_and_missing_split(config: Path, dataset: Path, command: str) -> None:
    (dataset / "empty").mkdir()
    key = "evaluation.split" if command == "evaluate" else "data.val_split"
    message = refused(command, "--config", config, f"{key}=empty", *models(command))
    assert "empty" in message and str(dataset / "empty") in message
    message = refused(command, "--config", config, f"{key}=neverland", *models(command))
    assert "neverland" in message and "train" in message


def models(command: str) -> list[str]:
    """Return no more options than a command has."""
    return ["--out", "unused"] if command == "evaluate" else []


def test_validate_refuses_what_is_not_a_dataset(tmp_path: Path, config: Path) -> None:
    assert "no such dataset folder" in refused("validate", tmp_path / "nowhere")
    assert "got a file" in refused("validate", config)
    assert "dataset.yaml" in refused("validate", tmp_path)


def test_validate_reports_findings_with_status_1(dataset: Path, tmp_path: Path) -> None:
    (dataset / "train/a/sharp/000001.png").unlink()
    result = CliRunner().invoke(
        app, ["validate", str(dataset), "--json", str(tmp_path / "out/found.json")]
    )
    assert result.exit_code == 1
    found = json.loads((tmp_path / "out/found.json").read_text())
    assert found["status"] == 1 and found["findings"]
    assert {"kind", "where", "message", "sequence", "facts"} == set(found["findings"][0])


def test_preview_refuses_a_wrong_geometry_and_other_files(dataset: Path, tmp_path: Path) -> None:
    dat = dataset / "train/a/spike/000000.dat"
    size = ("--height", SIZE, "--width", SIZE, "--out", tmp_path / "out")
    message = refused("preview", dat, "--height", 24, "--width", 40, "--out", tmp_path / "out")
    assert str(dat) in message and "got" in message and "expected" in message
    assert str(tmp_path) in refused("preview", tmp_path / "none.dat", *size)
    assert str(dataset) in refused("preview", dataset, *size)
    assert not (tmp_path / "out").exists()


def test_preview_writes_images(dataset: Path, tmp_path: Path) -> None:
    dat, out = dataset / "train/a/spike/000000.dat", tmp_path / "out"
    geometry = ["--height", str(SIZE), "--width", str(SIZE), "--threshold", "2"]
    result = CliRunner().invoke(app, ["preview", str(dat), *geometry, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (out / "tfp.png").is_file()


def test_preview_checks_the_animation_first(dataset: Path, tmp_path: Path) -> None:
    dat, out = dataset / "train/a/spike/000000.dat", tmp_path / "out"
    asked = ("preview", dat, "--height", SIZE, "--width", SIZE, "--out", out, "--animation")
    assert ".gif or .mp4" in refused(*asked, tmp_path / "a.txt")
    assert "window 32" in refused(*asked, tmp_path / "a.gif")
    assert "centre" in refused(*asked, tmp_path / "a.gif", "--window", 4, "--center", 99)
    assert not out.exists() and not (tmp_path / "a.gif").exists()
    result = CliRunner().invoke(app, [*map(str, asked), str(out / "a.gif"), "--window", "4"])
    assert result.exit_code == 0 and (out / "a.gif").is_file()


def test_preview_says_which_of_several_streams_it_shows(dataset: Path, tmp_path: Path) -> None:
    folder = dataset / "train/a/spike"
    (folder / "config.yaml").write_text(f"spike_h: {SIZE}\nspike_w: {SIZE}\nis_labeled: false\n")
    result = CliRunner().invoke(app, ["preview", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert f"{FRAMES} streams" in result.output and "000000.dat: 8 steps" in result.output


@pytest.mark.parametrize(
    "asked",
    [
        "convert {dat} s3://k:secret@b/x.npy --height 16 --width 16",
        "convert {set} s3://k:secret@b/x",
        "simulate --video {dat} --out s3://k:secret@b/x",
        "preview {dat} --height 16 --width 16 --out s3://k:secret@b/x",
        "validate {set} --html s3://k:secret@b/x.html",
        "validate {set} --json s3://k:secret@b/x.json",
        "evaluate --config {config} --out s3://k:secret@b/x",
    ],
)
def test_an_object_store_is_no_place_for_what_is_written_here(
    dataset: Path, config: Path, asked: str
) -> None:
    dat = dataset / "train/a/spike/000000.dat"
    message = refused(*asked.format(dat=dat, set=dataset, config=config).split())
    assert "cannot be written to an object store: got s3://b/x" in message
    assert not Path("s3:").exists()


def test_a_page_that_cannot_be_written_is_refused_first(dataset: Path) -> None:
    assert "a folder has this name" in refused("validate", dataset, "--html", dataset)
    below = dataset / "dataset.yaml/page.html"
    assert "this is no folder" in refused("validate", dataset, "--html", below)


def test_findings_are_said_before_the_page_is_written(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DataFormatError("the disk is full")

    monkeypatch.setattr("vrtspike.report.validation.write_validation_report", full)
    (dataset / "train/a/sharp/000001.png").unlink()
    page = str(tmp_path / "page.html")
    result = CliRunner().invoke(app, ["validate", str(dataset), "--html", page])
    assert result.exit_code == 2 and "000001" in result.stdout
    assert "the disk is full" in result.stderr


def test_convert_says_that_there_is_no_source(tmp_path: Path) -> None:
    message = refused("convert", tmp_path / "none.dat", tmp_path / "out.npy", "--height", 16)
    assert "no such file or folder" in message and "none.dat" in message


def test_convert_chooses_how_it_writes(dataset: Path, tmp_path: Path) -> None:
    dat = dataset / "train/a/spike/000000.dat"
    spikes = SpikeStream.open(dat, height=SIZE, width=SIZE)[:]

    def convert(name: str, *options: str) -> Path:
        size = ["--height", str(SIZE), "--width", str(SIZE)]
        asked = ["convert", str(dat), str(tmp_path / name), *size, *options]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 0, result.output
        return tmp_path / name

    with np.load(convert("a.npz", "--out-key", "events", "--out-flip")) as arrays:
        np.testing.assert_array_equal(arrays["events"], spikes[:, ::-1])
    packed = convert("b.dat", "--out-bit-order", "big", "--no-out-flip").read_bytes()
    assert packed == np.packbits(spikes).tobytes()
    assert "--out-key" in refused("convert", dataset, tmp_path / "c", "--out-key", "events")


def test_simulate_refuses_what_is_not_a_video(tmp_path: Path) -> None:
    text = tmp_path / "video.mp4"
    text.write_text("not a video")
    out = ("--out", tmp_path / "out")
    assert str(text) in refused("simulate", "--video", text, *out)
    message = refused("simulate", "--video", tmp_path / "none.mp4", *out)
    assert "no such video" in message and "none.mp4" in message
    uri = f"data.source=file://{tmp_path}/out"
    assert "no folder for the simulated" in refused("simulate", uri, "--video", text)
    (tmp_path / "folder").mkdir()
    assert "folder" in refused("simulate", "--video", tmp_path / "folder", *out)


def test_simulate_needs_a_source_and_a_folder(tmp_path: Path) -> None:
    assert "nothing to simulate from" in refused("simulate")
    assert "--out" in refused("simulate", "--video", tmp_path / "video.mp4")


def test_training_refuses_what_cannot_be(config: Path) -> None:
    assert "does not divide" in refused("train", "--config", config, "train.workers=2")
    message = refused("train", "--config", config, "model.channels=50", "model.spike.heads=3")
    assert "50" in message


def test_too_few_processors(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    few = ("train.workers=4", "train.batch=4", "train.cpus_per_worker=1")
    message = refused("train", "--config", config, *few)
    assert "too few CPUs" in message and "got 2 CPUs" in message and "expected 5" in message
    assert "train.cpus_per_worker=0.25" in message


def test_no_cluster_at_the_address(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vrtspike", "prepare", "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "no-cluster-here:1" in done.stderr and "ray start --head" in done.stderr


def test_refusals_reach_the_json_file(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    refused("train", "--config", config, "train.stepz=3", "--json", out)
    result = json.loads(out.read_text())
    assert result["status"] == 2 and result["error"] == "ConfigError"
    assert result["fix"] == "did you mean train.steps?"


def test_debug_shows_the_traceback_and_keeps_the_status(config: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--config", str(config), "no.key=1", "--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and "unknown setting no.key" in result.stderr


def test_help_is_fast_and_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, ray=None, numpy=None)\n"
        "sys.argv = ['vrtspike', '--help']\nfrom vrtspike.cli.app import main; main()"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 5
    for command in ("simulate", "validate", "preview", "prepare", "train", "evaluate", "demo"):
        assert command in done.stdout


def test_a_genuine_file_agrees_with_its_frame(shared: Path, tmp_path: Path) -> None:
    file, out = shared / "data/spk_gopro_000226.dat", tmp_path / "result.json"
    geometry = ["--height", "360", "--width", "640", "--threshold", "2", "--center", "40"]
    more = ["--frame", str(file.with_suffix(".png")), "--out", str(tmp_path), "--json", str(out)]
    result = CliRunner().invoke(app, ["preview", str(file), *geometry, *more])
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["psnr"]["tfp"] >= 28.5
