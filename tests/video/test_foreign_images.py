"""Images as cameras and programs write them: turned by a tag, in many modes, several in a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from vrtspike.datasets.footage import Source, open_footage
from vrtspike.errors import DataFormatError
from vrtspike.video.image_file import open_image, read_image, shown_size
from vrtspike.video.inspect import iter_frames

PIXELS = np.random.default_rng(3).integers(0, 256, (16, 24, 3), np.uint8)
SHOWN = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.swapaxes(0, 1),
    6: np.rot90(PIXELS, -1),
    7: np.rot90(PIXELS, 2).swapaxes(0, 1),
    8: np.rot90(PIXELS),
}
"""What each orientation shows of the stored pixels."""


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_every_format_is_turned_as_its_tag_says(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"a.{suffix}"
    more = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(PIXELS).save(file, exif=exif, **more)
    np.testing.assert_array_equal(read_image(file), SHOWN[orientation])
    with open_image(file) as image:
        assert shown_size(image) == SHOWN[orientation].shape[:2]


def test_a_turned_frame_among_upright_ones_is_refused_by_name(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number in range(3):
        more = {"exif": exif} if number == 1 else {}
        Image.fromarray(PIXELS).save(tmp_path / f"{number}.jpg", **more)
    with pytest.raises(DataFormatError, match=r"different sizes.*1\.jpg.*got 24x16"):
        open_footage(Source("clip", tmp_path, None))


def test_a_mode_that_loses_nothing_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    opaque = np.concatenate([PIXELS, np.full_like(PIXELS[..., :1], 255)], axis=-1)
    Image.fromarray(opaque).save(file)
    np.testing.assert_array_equal(read_image(file), PIXELS)
    key = (PIXELS[0, 0].astype(int) + 1) % 256
    assert not (key == PIXELS).all(-1).any()
    Image.fromarray(PIXELS).save(file, transparency=tuple(key.tolist()))
    np.testing.assert_array_equal(read_image(file), PIXELS)
    bits = PIXELS[..., 0] > 127
    Image.fromarray(bits).save(file)
    np.testing.assert_array_equal(read_image(file)[..., 1], bits * 255)
    Image.fromarray(PIXELS).convert("YCbCr").save(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif").astype(int)
    assert np.abs(found - PIXELS).max() <= 3, "rounded to 8 bits of YCbCr"


def test_what_would_lose_something_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    clear = np.concatenate([PIXELS, np.full_like(PIXELS[..., :1], 255)], axis=-1)
    clear[3, 4, 3] = 254
    Image.fromarray(clear).save(file)
    with pytest.raises(DataFormatError, match="got RGBA, transparent at 1 pixels"):
        read_image(file)
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(file)
    with pytest.raises(DataFormatError, match="16 bits"):
        read_image(file)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_a_stack_among_frames_is_refused_with_its_count(name: str, tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.roll(PIXELS, n, 1)) for n in range(4)]
    file = tmp_path / name
    pictures[0].save(file, save_all=True, append_images=pictures[1:])
    with pytest.raises(DataFormatError, match=r"is a stack.*got 4 pictures"):
        read_image(file)
    with pytest.raises(DataFormatError, match=r"is a stack.*got 4 pictures"):
        open_footage(Source("clip", tmp_path, None))


def test_an_animated_png_is_a_clip_and_a_stack_is_none(tmp_path: Path) -> None:
    pictures = [np.roll(PIXELS, n, 1) for n in range(4)]
    images = [Image.fromarray(picture) for picture in pictures]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:])
    np.testing.assert_array_equal(list(iter_frames(tmp_path / "a.png")), pictures)
    assert open_footage(Source("clip", tmp_path / "a.png", None)).frames == 4
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    with pytest.raises(DataFormatError, match="got 4 pictures"):
        next(iter_frames(tmp_path / "a.tif"))
    with pytest.raises(DataFormatError, match="got 4 pictures"):
        open_footage(Source("clip", tmp_path / "a.tif", None))


def test_one_image_is_a_clip_of_one_frame_turned_like_any(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    footage = open_footage(Source("clip", tmp_path / "a.png", None))
    assert (footage.frames, footage.size) == (1, (24, 16))
    np.testing.assert_array_equal(next(iter_frames(tmp_path / "a.png")), SHOWN[6])


def test_the_shared_examples(shared: Path, tmp_path: Path) -> None:
    faults = shared / "data/faults"
    if not faults.is_dir():
        pytest.skip("no shared/data/faults")
    sizes = {"exif3.jpg": (64, 96), "exif6.jpg": (96, 64), "exif6.tif": (96, 64)}
    for name, size in sizes.items():
        assert read_image(faults / "01_exif" / name).shape[:2] == size
    with pytest.raises(DataFormatError, match=r"001\.jpg"):
        open_footage(Source("clip", faults / "01_exif/exif_mixed", None))
    for name in ("bit1.png", "rgb_trns.png", "rgba_opaque.png", "ycbcr.tif"):
        assert read_image(faults / "09_alpha_and_modes" / name).shape == (64, 96, 3)
    for name in ("i16.png", "p_trns.png"):
        with pytest.raises(DataFormatError, match="unsupported kind"):
            read_image(faults / "09_alpha_and_modes" / name)
    for name in ("stack.tif", "apng.png"):
        shutil.copy(faults / "10_stack_tif" / name, tmp_path / name)
        with pytest.raises(DataFormatError, match="got 10 pictures"):
            read_image(tmp_path / name)


def test_a_tag_behind_the_pixels_of_a_png_turns_it_too(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    place = content.index(b"eXIf") - 4
    stop = place + 12 + int.from_bytes(content[place : place + 4], "big")
    end = content.index(b"IEND") - 4
    tag, rest = content[place:stop], content[:place] + content[stop:]
    end -= len(tag) if end > place else 0
    (tmp_path / "b.png").write_bytes(rest[:end] + tag + rest[end:])
    with open_image(tmp_path / "b.png") as image:
        assert shown_size(image) == (6, 4)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), read_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), np.rot90(pixels, -1))
