"""Image files: the one place that opens them, and the formats that it opens.

In: a file. Out: a Pillow image whose header has been read. A name's suffix proves nothing, and
Pillow knows some 40 formats, of which EPS starts Ghostscript, and others fetch, guess or embed: so
the content must be of one of `FORMATS`, whatever the file is called.
"""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from vrtspike.errors import DataFormatError, one_line

PNG_HEAD, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
BLOCK_BYTES = 1 << 20
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of the formats; those that it has at hand come first."""


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
    kind = b""
    while kind != PNG_END:
        head = file.read(8)
        if len(head) < 8:
            return False
        left, kind = int.from_bytes(head[:4], "big"), head[4:]
        found = zlib.crc32(kind)
        while left:
            block = file.read(min(left, BLOCK_BYTES))
            if not block:
                return False
            found, left = zlib.crc32(block, found), left - len(block)
        if file.read(4) != found.to_bytes(4, "big"):
            return False
    return not file.read(1)


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an 8-bit image file as RGB; gray is repeated, transparency and 16 bits are refused.

    One of another `size` (rows, columns) is refused before its pixels are read.
    """
    try:
        with open_image(path) as image:
            # Pillow cuts 16-bit RGB down to 8 bits by itself; only the decoder's name tells.
            deep = any(";16" in str(tile[3]) for tile in image.tile)
            clear = "transparency" in image.info
            if image.mode not in ("RGB", "L", "P") or deep or clear:
                raise DataFormatError(
                    "unsupported kind of image",
                    where=path,
                    got=image.mode + (", 16 bits" if deep else ", transparent" if clear else ""),
                    expected="8-bit RGB",
                    fix="convert the images to 8-bit RGB",
                )
            if size is not None and (image.height, image.width) != size:
                raise DataFormatError(
                    "the image has another size",
                    where=path,
                    got=f"{image.height}x{image.width}",
                    expected="{}x{} (dataset.yaml, or the first frame)".format(*size),
                    fix="correct the size in dataset.yaml, or the image",
                )
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataFormatError(
            "not an image",
            where=path,
            expected=", ".join(FORMATS),
            fix="copy the file again, or convert it",
        ) from error
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise DataFormatError(
            "unreadable image", where=path, got=one_line(error, 200), fix="copy the file again"
        ) from error
