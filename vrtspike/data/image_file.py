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

from PIL import Image, ImageFile

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
