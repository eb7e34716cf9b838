"""Only the promised formats are opened, whatever a file is called, and no program is started."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrtspike.datasets.footage import Source, open_footage
from vrtspike.datasets.index import open_dataset
from vrtspike.errors import DataFormatError
from vrtspike.video.image_file import FORMATS, IMAGE_SUFFIXES, read_image

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 24 16
%%EndComments
newpath 0 0 moveto 24 16 lineto stroke
showpage
%%EOF
"""
PIXELS = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
OTHERS = ("GIF", "PPM", "TGA", "PCX", "ICO", "SGI", "DDS", "JPEG2000", "ICNS", "PDF", "EPS")
"""Formats that Pillow writes, and nobody was promised."""


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note every program that is started, and start none."""
    started: list[Any] = []

    def start(arguments: Any, *_: object, **__: object) -> None:
        started.append(arguments)
        raise OSError("a program was started")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, start)
    monkeypatch.setattr(os, "system", start)
    return started


def encoded(kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, format=kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_promised_format_is_read_whatever_the_suffix(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(encoded(kind))
    found = read_image(file, (16, 24))
    assert found.shape == (16, 24, 3)
    if kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(found, PIXELS)


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_format_is_refused(kind: str, tmp_path: Path, programs: list[Any]) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(kind))
    with pytest.raises(DataFormatError, match=r"not an image.*expected PNG, JPEG, BMP, TIFF, WEBP"):
        read_image(file)
    assert not programs


@pytest.mark.parametrize("dos", [b"", b"\xc5\xd0\xd3\xc6" + b"\x1e\0\0\0" + b"\0" * 22])
def test_postscript_that_is_named_png_starts_nothing(
    dos: bytes, tmp_path: Path, programs: list[Any]
) -> None:
    for kind in ("blur", "sharp"):
        folder = tmp_path / "train" / "a" / kind
        folder.mkdir(parents=True)
        (folder / "000000.png").write_bytes(dos + EPS)
    with pytest.raises(DataFormatError, match="not an image"):
        read_image(folder / "000000.png")
    with pytest.raises(DataFormatError, match="not an image"):
        open_footage(Source("a", folder, None))
    dataset = open_dataset(tmp_path, "gopro")
    with pytest.raises(DataFormatError, match="unreadable image"):
        dataset.clip("train", "a")
    assert not programs


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for name in ("a.png", "b.png"):
        with pytest.raises(DataFormatError, match="a folder, a device or a pipe"):
            read_image(tmp_path / name)
