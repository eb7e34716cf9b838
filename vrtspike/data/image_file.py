"""Image files: the one place that opens them, and the formats that it opens.

In: a file. Out: a Pillow image whose header has been read. A name's suffix proves nothing, and
Pillow knows some 40 formats, of which EPS starts Ghostscript, and others fetch, guess or embed: so
the content must be of one of `FORMATS`, whatever the file is called.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of the formats; those that it has at hand come first."""


def open_image(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    """Open an image file, to be closed by the caller; pixels are read when they are asked for.

    Raises what Pillow raises: UnidentifiedImageError for any other format.
    """
    if isinstance(file, Path) and not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError("a folder, a device or a pipe")  # which might never end
    return Image.open(file, formats=FORMATS)
