"""Image files: the one place that opens them, and the formats that it opens.

In: a file. Out: a Pillow image whose header has been read, or 8-bit RGB, turned and mirrored as the
file's orientation tag says, whatever the format. A name's suffix proves nothing, and
Pillow knows some 40 formats, of which EPS starts Ghostscript, and others fetch, guess or embed: so
the content must be of one of `FORMATS`, whatever the file is called.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from vrtspike.errors import DataFormatError, one_line

PNG_HEAD, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
BLOCK_BYTES = 1 << 20
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of the formats; those that it has at hand come first."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PLAIN_MODES = ("RGB", "L", "P", "1")
"""Modes whose colours 8-bit RGB holds as they are."""
SUBFILE_KIND, SUBSAMPLING, REFERENCE = 254, 530, 532
"""TIFF's tags of what a page is, and of how YCbCr is stored."""
FULL_RANGE = (0, 255, 128, 255, 128, 255)
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError)
"""What Pillow raises for files that it cannot read."""


def open_image(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    """Open an image file, to be closed by the caller; pixels are read when they are asked for.

    Raises what Pillow raises: UnidentifiedImageError for any other format.
    """
    if isinstance(file, Path) and not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError("a folder, a device or a pipe")  # which might never end
    return Image.open(file, formats=FORMATS)


def png_is_whole(file: IO[bytes]) -> bool:
    """Tell whether a PNG file has all of its parts, and their sums (CRC-32) are right.

    Pillow does not check the sums of pixels.
    """
    if file.read(len(PNG_HEAD)) != PNG_HEAD:
        return False
    for kind, left in _png_chunks(file):
        found = zlib.crc32(kind)
        while left:
            block = file.read(min(left, BLOCK_BYTES))
            if not block:
                return False
            found, left = zlib.crc32(block, found), left - len(block)
        if file.read(4) != found.to_bytes(4, "big"):
            return False
        if kind == PNG_END:
            return not file.read(1)
    return False


def _png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield kind and length of each chunk of a PNG, with the file where its content begins."""
    place, kind = len(PNG_HEAD), b""
    while kind != PNG_END:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        yield kind, length
        place += 8 + length + 4


def shown_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Return rows and columns as the image is shown, turned as its tag says; reads no pixel."""
    return _turned_size(image, _orientation(image))


def _turned_size(image: ImageFile.ImageFile, orientation: int) -> tuple[int, int]:
    """Return rows and columns of an image that is turned as its tag says."""
    lying = orientation in (5, 6, 7, 8)
    # Pillow exchanges the sides of a TIFF itself.
    if lying and image.format != "TIFF":
        return image.width, image.height
    return image.height, image.width


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the value of the orientation tag, 1 if there is none; reads no pixel."""
    if image.format == "PNG":
        tags = Image.Exif()
        tags.load(image.info.get("exif") or _exif_of_png(cast("IO[bytes]", image.fp)))
    else:
        tags = image.getexif()
    value: int = tags.get(ExifTags.Base.Orientation, 1)
    return value


def _exif_of_png(file: IO[bytes]) -> bytes:
    """Return the EXIF data of a PNG, which may follow the pixels; Pillow would decode these."""
    before = file.tell()
    chunks = _png_chunks(file)
    exif = next((file.read(length) for kind, length in chunks if kind == b"eXIf"), b"")
    file.seek(before)
    return exif


def pages(image: ImageFile.ImageFile) -> int:
    """Return how many pictures a file holds; small copies of the first do not count."""
    count: int = getattr(image, "n_frames", 1)
    if image.format == "MPO":
        kinds = [entry["Attribute"]["MPType"] for entry in getattr(image, "mpinfo", {})[0xB002]]
        return 1 + sum("Thumbnail" not in kind for kind in kinds[1:])
    if image.format != "TIFF" or count == 1:
        return count
    whole = 0
    for number in range(count):
        image.seek(number)
        whole += not image.tag_v2.get(SUBFILE_KIND, 0) & 1  # type: ignore[attr-defined]
    image.seek(0)
    return max(whole, 1)


def read_image(path: Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an 8-bit image file as RGB, upright as its orientation tag says; gray is repeated.

    16 bits, transparency that shows, and files of several pictures are refused, and one of another
    `size` (rows, columns) before its pixels are read.
    """
    try:
        with open_image(path) as image:
            _check_kind(path, image)
            orientation = _orientation(image)
            shown = _turned_size(image, orientation)
            if size is not None and shown != size:
                raise DataFormatError(
                    "the image has another size",
                    where=path,
                    got="{}x{}".format(*shown),
                    expected="{}x{} (dataset.yaml, or the first frame)".format(*size),
                    fix="correct the size in dataset.yaml, or the image",
                )
            turned = image.format != "TIFF" and orientation != 1
            upright = ImageOps.exif_transpose(image) if turned else image
            return np.asarray(_opaque(path, upright).convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataFormatError(
            "not an image",
            where=path,
            expected=", ".join(FORMATS),
            fix="copy the file again, or convert it",
        ) from error
    except IMAGE_ERRORS as error:
        raise DataFormatError(
            "unreadable image", where=path, got=one_line(error, 200), fix="copy the file again"
        ) from error


def _check_kind(path: Path, image: ImageFile.ImageFile) -> None:
    """Refuse several pictures in one file, and values that are not 8-bit RGB or gray."""
    if (count := pages(image)) > 1:
        raise DataFormatError(
            "the image file is a stack",
            where=path,
            got=f"{count} pictures",
            expected="a file for each frame",
            fix=f"split it: ffmpeg -i {path.name} %04d.png (ImageMagick for a TIFF: convert "
            f"{path.name} %04d.png)",
        )
    # Pillow cuts 16-bit RGB down to 8 bits by itself; only the decoder's name tells.
    deep = any(";16" in str(tile[3]) for tile in image.tile)
    taken = image.mode in (*PLAIN_MODES, "RGBA", "LA", "PA") or _is_plain_ycbcr(image)
    if deep or not taken:
        raise DataFormatError(
            "unsupported kind of image",
            where=path,
            got=image.mode + (", 16 bits" if deep or image.mode.startswith("I") else ""),
            expected="8-bit RGB or gray",
            fix="convert the images to 8-bit RGB",
        )


def _is_plain_ycbcr(image: ImageFile.ImageFile) -> bool:
    """Tell whether a TIFF stores full-range YCbCr of BT.601, a sample for each pixel."""
    if image.mode != "YCbCr" or image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    whole = tuple(tags.get(SUBSAMPLING, (2, 2))) == (1, 1)
    return whole and tuple(tags.get(REFERENCE, FULL_RANGE)) == FULL_RANGE


def _opaque(path: Path, image: Image.Image) -> Image.Image:
    """Return an image without its transparency; pixels that are seen through are refused."""
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA"):
        return image
    clear = image.convert("RGBA")
    alpha = np.asarray(clear.getchannel("A"))
    if alpha.min() < 255:
        raise DataFormatError(
            "unsupported kind of image",
            where=path,
            got=f"{image.mode}, transparent at {np.count_nonzero(alpha < 255)} pixels",
            expected="8-bit RGB",
            fix="save the images without transparency",
        )
    return clear
