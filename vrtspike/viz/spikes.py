"""Pictures of a spike stream: what a user looks at before trusting its geometry.

In: a `SpikeStream`, or any spikes `(s, h, w)`. Out: gray images, uint8, by name. Intensities are
threshold x rate in [0, 1], not stretched, so that a wrong threshold shows.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vrtspike.data.dat import SpikeStream
from vrtspike.data.dataset import read_image
from vrtspike.data.gray import gray_on_grid
from vrtspike.data.reconstruct import tfi, tfp
from vrtspike.data.voxelize import bin_steps, normalize_voxels, voxelize
from vrtspike.errors import ConfigError

Picture = UInt8[np.ndarray, "h w"]


def preview(
    stream: SpikeStream,
    *,
    threshold: float | None = None,
    center: int | None = None,
    window: int = 32,
    bins: int = 8,
) -> dict[str, Picture]:
    """Return the pictures `tfp`, `tfi`, `bits` (one step) and `voxels` (a sheet of all bins).

    The threshold is the stream's unless given; `center` is a step, the stream's middle if not
    given; TFP and voxels are of the `window` steps around it, as far as the stream goes.
    """
    threshold = stream.threshold if threshold is None else threshold
    if threshold is None:
        raise ConfigError("no threshold to scale the spikes with", fix="give --threshold")
    if not 0 <= (center := len(stream) // 2 if center is None else center) <= len(stream):
        raise ConfigError("the centre leaves the stream", got=center, expected=f"0-{len(stream)}")
    if window < 1:
        raise ConfigError("the window must hold a step", got=window)
    spikes = stream[:]
    start = max(center - window // 2, 0)
    stop = min(center - window // 2 + window, len(stream))
    counts = voxelize(spikes, min(bins, stop - start), start=start, stop=stop)
    voxels = normalize_voxels(counts, bin_steps(stop - start, len(counts)), threshold, "rate")
    return {
        "tfp": to_picture(tfp(spikes, threshold=threshold, center=center, window=window)),
        "tfi": to_picture(tfi(spikes, step=center, threshold=threshold)),
        "bits": to_picture(spikes[min(center, len(spikes) - 1)].astype(np.float32)),
        "voxels": contact_sheet(voxels),
    }


def compare(pictures: dict[str, Picture], frame: Path) -> dict[str, float]:
    """Return the PSNR (dB) of the pictures that show brightness against a frame's gray."""
    rgb = read_image(frame)
    found = {}
    for name in ("tfp", "tfi"):
        sharp = to_picture(gray_on_grid(rgb, *pictures[name].shape)).astype(np.float64)
        error = np.square(pictures[name] - sharp).mean()
        found[name] = float(10 * np.log10(255.0**2 / max(error, 1e-9)))
    return found


def write_preview(pictures: dict[str, Picture], folder: str | os.PathLike[str]) -> list[Path]:
    """Write pictures as PNG, one file a name, and return the files."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError("the output must be a folder", where=folder, got="a file")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def contact_sheet(images: Float[np.ndarray, "k h w"], gap: int = 4) -> Picture:
    """Lay images out in rows on white, in reading order, about as wide as high."""
    k, height, width = images.shape
    columns = min(k, max(1, round((k * height / width) ** 0.5)))
    rows = -(-k // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = to_picture(image)
    return sheet


def to_picture(intensity: Float[np.ndarray, "h w"]) -> Picture:
    """Round [0, 1] to 8 bits, clipping what is beyond."""
    return np.rint(intensity * 255.0).clip(0, 255).astype(np.uint8)
