"""Pictures of a stream show its intensity, at the instant that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.spikes.naive_voxels import normalize_voxels, voxelize
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.report.spikes import compare, contact_sheet, preview, to_picture, write_preview
from vrtspike.spikes import stream as module
from vrtspike.spikes.packed_writer import write_dat
from vrtspike.spikes.reconstruct import tfi, tfp
from vrtspike.spikes.stream import SpikeStream
from vrtspike.spikes.voxels import bin_steps
from vrtspike.spikes.write import write_stream


@pytest.fixture
def stream(tmp_path: Path) -> SpikeStream:
    """Return 40 steps: dark, then from step 20 on every second step a spike in the right half."""
    spikes = np.zeros((40, 6, 8), bool)
    spikes[21::2, :, 4:] = True
    write_dat(tmp_path / "a.dat", spikes)
    return SpikeStream.open(tmp_path / "a.dat", height=6, width=8, threshold=2.0)


def test_pictures_show_the_intensity_at_the_centre(stream: SpikeStream) -> None:
    pictures = preview(stream, center=30, window=8, bins=4)
    assert set(pictures) == {"tfp", "tfi", "bits", "voxels"}
    for name in ("tfp", "tfi"):
        assert (pictures[name][:, 4:] == 255).all()
        assert (pictures[name][:, :4] == 0).all()
    assert not preview(stream, center=10, window=8)["tfp"].any(), "dark before step 20"
    half = preview(stream, center=30, window=8, threshold=1.0)["tfp"]
    assert (half[:, 4:] == 128).all()


def test_windows_end_where_the_stream_ends(stream: SpikeStream) -> None:
    pictures = preview(stream, center=40, window=8, bins=16)
    assert (pictures["tfp"][:, 4:] == 255).all()
    assert (pictures["bits"][:, 4:] == 255).all(), "the last step, 39"


@pytest.mark.parametrize("center", [0, 1, 17, 150, 299, 300])
@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("threshold", [0.04, 2.0])
def test_pictures_read_in_part_equal_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, center: int, piece: int, threshold: float
) -> None:
    """Pixels fire often, rarely, once, and never; 0.04 lets the search for spikes end early."""
    rng = np.random.default_rng(center)
    spikes = rng.random((300, 4, 6)) < np.array([0.5, 0.1, 0.02, 0.004, 0.002, 0])
    monkeypatch.setattr(module, "PIECE_BYTES", piece * 24)
    stream = SpikeStream.from_array(spikes, threshold=threshold)
    pictures = preview(stream, center=center, window=21, bins=4)
    window = {"threshold": threshold, "center": center, "window": 21}
    np.testing.assert_array_equal(pictures["tfp"], to_picture(tfp(spikes, **window)))
    expected = to_picture(tfi(spikes, step=center, threshold=threshold))
    np.testing.assert_array_equal(pictures["tfi"], expected)
    start, stop = max(center - 10, 0), min(center + 11, 300)
    counts = voxelize(spikes, 4, start=start, stop=stop)
    voxels = normalize_voxels(counts, bin_steps(stop - start, 4), threshold, "rate")
    edges = start + np.cumsum([0, *bin_steps(stop - start, 4)])
    labels = [f"bin {i + 1}: steps {edges[i]}-{edges[i + 1] - 1}" for i in range(4)]
    np.testing.assert_array_equal(pictures["voxels"], contact_sheet(voxels, labels))


def test_only_the_steps_around_the_centre_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    spikes = np.zeros((100_000, 2, 8), bool)
    spikes[::5] = True
    read = []
    whole = SpikeStream.__getitem__

    def watched(stream: SpikeStream, steps: slice) -> object:
        read.append((steps.start, steps.stop))
        return whole(stream, steps)

    monkeypatch.setattr(SpikeStream, "__getitem__", watched)
    preview(SpikeStream.from_array(spikes, threshold=2.0), center=5000)
    assert all(5000 - 16 <= start < stop <= 5000 + 16 for start, stop in read)
    read.clear()
    spikes[:, 0] = False
    preview(SpikeStream.from_array(spikes, threshold=2.0), center=5000)
    assert min(read)[0] == 5000 - 1021 and max(stop for _, stop in read) == 5000 + 1021


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
def test_every_format_shows_the_same(stream: SpikeStream, tmp_path: Path, name: str) -> None:
    write_stream(tmp_path / name, stream, axes="hws")
    other = SpikeStream.open(tmp_path / name, axes="hws", threshold=2.0)
    pictures = preview(other, center=30)
    for kind, picture in preview(stream, center=30).items():
        np.testing.assert_array_equal(pictures[kind], picture)


def test_the_frame_is_shown_when_given(stream: SpikeStream, tmp_path: Path) -> None:
    frame = np.zeros((12, 16, 3), np.uint8)
    frame[:, 8:] = 255
    Image.fromarray(frame).save(tmp_path / "frame.png")
    pictures = preview(stream, center=30, window=8, frame=tmp_path / "frame.png")
    gray, tfp_part, tfi_part = (pictures["side_by_side"][:, x : x + 8] for x in (0, 12, 24))
    assert pictures["side_by_side"].shape == (6, 32)
    np.testing.assert_array_equal(gray, frame[::2, ::2, 0])
    np.testing.assert_array_equal(tfp_part, pictures["tfp"])
    np.testing.assert_array_equal(tfi_part, pictures["tfi"])
    assert compare(pictures, tmp_path / "frame.png")["tfp"] > 90
    with pytest.raises((ConfigError, DataFormatError), match=r"none\.png"):
        preview(stream, frame=tmp_path / "none.png")


def test_what_cannot_be_shown_is_refused(stream: SpikeStream, tmp_path: Path) -> None:
    unscaled = SpikeStream.open(tmp_path / "a.dat", height=6, width=8)
    with pytest.raises(ConfigError, match="no threshold"):
        preview(unscaled)
    with pytest.raises(ConfigError, match="centre leaves"):
        preview(stream, center=41)
    with pytest.raises(ConfigError, match="window"):
        preview(stream, window=0)
    with pytest.raises(ConfigError, match="no step of the stream"):
        preview(stream, center=40, window=1)
    with pytest.raises(ConfigError, match="threshold must be positive"):
        preview(stream, threshold=float("nan"))
    assert stream.path is not None
    with pytest.raises(ConfigError, match="must be a folder"):
        write_preview({}, stream.path)


def test_a_contact_sheet_is_read_row_by_row() -> None:
    images = np.arange(5, dtype=np.float32)[:, None, None] / 5 * np.ones((5, 3, 4), np.float32)
    sheet = contact_sheet(images, gap=1)
    values = [sheet[y * 4, x * 5] for y in range(3) for x in range(2)]
    assert values == [0, 51, 102, 153, 204, 255]
    assert (sheet[3] == 255).all()


def test_panels_of_a_sheet_have_their_labels_above_them() -> None:
    images = np.full((2, 30, 40), 0.5, np.float32)
    sheet = contact_sheet(images, ["bin 1: steps 100-103", "bin 2"])
    assert sheet.shape[0] == 2 * (18 + 30) + 4 and sheet.shape[1] > 2 * 40
    for top in (0, 52):
        label, picture = sheet[top : top + 18], sheet[top + 18 : top + 48]
        assert label.min() < 100 and (label[:, -1:] == 255).all(), "the text is there and whole"
        assert (picture[:, :40] == 128).all() and (picture[:, 40:] == 255).all()


def test_a_genuine_stream_looks_like_its_frame(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "spk_gopro_000226.dat"
    stream = SpikeStream.open(path, height=360, width=640, threshold=2.0)
    files = write_preview(preview(stream, center=40), tmp_path / "out")
    assert [file.name for file in files] == ["tfp.png", "tfi.png", "bits.png", "voxels.png"]
    with Image.open(files[0]) as picture, Image.open(path.with_suffix(".png")) as frame:
        image = np.asarray(picture, np.float64)
        gray = np.asarray(frame.convert("RGB")) @ (0.299, 0.587, 0.114)
    gray = gray.reshape(360, 2, 640, 2).mean(axis=(1, 3))
    assert 10 * np.log10(255**2 / np.mean((image - gray) ** 2)) >= 28.5


@pytest.mark.parametrize("size", [(12, 8), (6, 16), (15, 20), (3, 4), (13, 16)])
def test_a_frame_is_never_stretched(
    stream: SpikeStream, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size[::-1]).save(tmp_path / "frame.png")
    says = f"a frame of {size[0]}x{size[1]} beside spikes of 6x8"
    with pytest.raises(ConfigError, match=says):
        preview(stream, frame=tmp_path / "frame.png")
    with pytest.raises(ConfigError, match=says):
        compare(preview(stream), tmp_path / "frame.png")


def test_files_that_are_missing_or_in_the_way_are_named(
    stream: SpikeStream, tmp_path: Path
) -> None:
    with pytest.raises(DataFormatError, match=r"no such file \[.*none\.png"):
        preview(stream, frame=tmp_path / "none.png")
    for folder in (tmp_path / "a.dat" / "out", tmp_path / "a.dat" / "further" / "out"):
        with pytest.raises(ConfigError, match=r"must be a folder \[.*out"):
            write_preview({}, folder)
    with pytest.raises(DataFormatError, match="cannot make the folder"):
        write_preview({}, tmp_path / ("n" * 300))
