"""Pictures of a stream show its intensity, at the instant that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrtspike.data.dat import SpikeStream, write_dat
from vrtspike.errors import ConfigError
from vrtspike.viz.spikes import contact_sheet, preview, write_preview


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
    assert pictures["voxels"].shape == (2 * 6 + 4, 2 * 8 + 4)
    assert not preview(stream, center=10, window=8)["tfp"].any(), "dark before step 20"
    half = preview(stream, center=30, window=8, threshold=1.0)["tfp"]
    assert (half[:, 4:] == 128).all()


def test_windows_end_where_the_stream_ends(stream: SpikeStream) -> None:
    pictures = preview(stream, center=40, window=8, bins=16)
    assert (pictures["tfp"][:, 4:] == 255).all()
    assert (pictures["bits"][:, 4:] == 255).all(), "the last step, 39"


def test_what_cannot_be_shown_is_refused(stream: SpikeStream, tmp_path: Path) -> None:
    unscaled = SpikeStream.open(stream.path, height=6, width=8)
    with pytest.raises(ConfigError, match="no threshold"):
        preview(unscaled)
    with pytest.raises(ConfigError, match="centre leaves"):
        preview(stream, center=41)
    with pytest.raises(ConfigError, match="window"):
        preview(stream, window=0)
    with pytest.raises(ConfigError, match="must be a folder"):
        write_preview({}, stream.path)


def test_a_contact_sheet_is_read_row_by_row() -> None:
    images = np.arange(5, dtype=np.float32)[:, None, None] / 5 * np.ones((5, 3, 4), np.float32)
    sheet = contact_sheet(images, gap=1)
    values = [sheet[y * 4, x * 5] for y in range(3) for x in range(2)]
    assert values == [0, 51, 102, 153, 204, 255]
    assert (sheet[3] == 255).all()


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
