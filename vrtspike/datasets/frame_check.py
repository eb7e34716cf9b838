"""Check the files of one frame, each by itself and the two images against one another.

In: a clip on this machine and a frame of it. Out: findings, and what the checks of the whole
sequence need of the frame: digests of its content, and how much detail its images show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from vrtspike.datasets.clip import FRAME_KINDS, Clip, FrameKind, iter_spikes, read_frames
from vrtspike.datasets.findings import Finding
from vrtspike.errors import DataFormatError
from vrtspike.spikes.gray import gray_on_grid, luma

MIN_EXPECTED_SPIKES = 10
"""Spikes that a frame's light must give before a stream without any is a finding."""
MIN_DETAIL_RATIO = 0.9
"""Detail of the sharp frames over that of the blurred ones below which they are exchanged."""

Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class FrameCheck:
    """What is known of a frame after its files were read."""

    findings: tuple[Finding, ...]
    content: tuple[bytes, ...]
    """Digests of its spikes and of its sharp image, as far as they show something."""
    sharp: bytes
    """Digest of the sharp image, whatever it shows; empty if there is none."""
    is_copy: bool
    """The blurred image is the sharp one."""
    detail: tuple[float, float] | None
    """Mean absolute difference of neighbouring pixels, of the blurred and of the sharp image."""


def check_frame(clip: Clip, index: int, folder: object) -> FrameCheck:
    """Read the files of a frame; `folder` is where they really lie, for messages."""
    frame = clip.frames[index]
    findings: list[Finding] = []
    content: list[bytes] = []
    images: dict[FrameKind, Image] = {}
    for kind in FRAME_KINDS:
        if file := getattr(frame, kind):
            try:
                images[kind] = read_frames(clip, kind, index, index + 1)[0]
            except DataFormatError as error:
                text = _without_place(error)
                findings.append(Finding("image", f"{folder}/{file}", text, clip.name))
    if frame.spikes:
        where = f"{folder}/{frame.spikes[0].file}"
        try:
            seen = _look_at_spikes(clip, index)
        except DataFormatError as error:
            findings.append(Finding("spikes", where, _without_place(error), clip.name))
        else:
            if state := _dead(clip, seen, images):
                findings.append(Finding("dead-spikes", where, state, clip.name))
            if seen.some and not seen.every:
                content.append(seen.digest)
    sharp = images.get("sharp")
    if sharp is not None and sharp.min() < sharp.max():
        content.append(_digest(sharp))
    both = [images[kind] for kind in FRAME_KINDS if kind in images]
    return FrameCheck(
        tuple(findings),
        tuple(content),
        _digest(sharp) if sharp is not None else b"",
        len(both) == 2 and np.array_equal(both[0], both[1]),
        (_detail(both[0]), _detail(both[1])) if len(both) == 2 else None,
    )


def check_images(clip: Clip, checks: list[FrameCheck], folder: object) -> Iterator[Finding]:
    """Report blurred images that are copies of the sharp ones, and kinds that are exchanged.

    Where the picture stands still the two are rightly the same.
    """
    copies = 0
    for index, check in enumerate(checks):
        beside = [c.sharp for c in checks[max(index - 1, 0) : index + 2] if c is not check]
        if check.is_copy and check.sharp not in beside:
            copies += 1
            where = f"{folder}/{clip.frames[index].blurred}"
            text = "the blurred frame is its own ground truth"
            yield Finding("blurred-is-sharp", where, text, clip.name)
    details = [check.detail for check in checks if check.detail is not None]
    if not details or copies:
        return
    blurred, sharp = np.mean(details, axis=0)
    if sharp < MIN_DETAIL_RATIO * blurred:
        ratio = float(sharp / blurred)
        text = (
            f"the sharp frames show {ratio:.0%} of the blurred frames' detail: "
            "are the two exchanged?"
        )
        where = f"{folder}/{clip.name}"
        yield Finding("swapped-frames", where, text, clip.name, {"detail_ratio": ratio})


class _Spikes(NamedTuple):
    """What is known of a frame's spikes: whether some, or all, fire, and what tells them apart."""

    steps: int
    some: bool
    every: bool
    digest: bytes


def _look_at_spikes(clip: Clip, index: int) -> _Spikes:
    """Go through a frame's spikes in bounded memory: of a stream alone it is the whole recording.

    The digest is of each step by itself, so that it does not tell how the steps were read.
    """
    steps, some, every, digest = 0, False, True, hashlib.sha1()
    for spikes in iter_spikes(clip, index):
        steps += len(spikes)
        some, every = some or bool(spikes.any()), every and bool(spikes.all())
        digest.update(np.packbits(spikes.reshape(len(spikes), -1), axis=1).tobytes())
    return _Spikes(steps, some, every, digest.digest())


def _dead(clip: Clip, seen: _Spikes, images: dict[FrameKind, Image]) -> str:
    """Say that no pixel fires, or each at every step, unless the frame is so dark or so bright."""
    if seen.some and not seen.every:
        return ""
    threshold = clip.info.camera.threshold
    image = images.get("blurred")
    gray = gray_on_grid(image, *clip.info.camera.grid) if image is not None else None
    if not seen.some:
        expected = None if gray is None else gray * (seen.steps / threshold)
        dark = expected is not None and (expected.max() < 1 or expected.sum() < MIN_EXPECTED_SPIKES)
        return "" if dark else "no pixel ever fires"
    bright = gray is not None and float(gray.min()) >= 0.99 * threshold
    return "" if bright else "every pixel fires at every step"


def _detail(image: Image) -> float:
    gray: Float[np.ndarray, "h w"] = luma(image.astype(np.float32))
    return float(np.abs(np.diff(gray, axis=0)).mean() + np.abs(np.diff(gray, axis=1)).mean())


def _digest(array: NDArray[np.uint8]) -> bytes:
    return hashlib.sha1(array.tobytes()).digest()


def _without_place(error: DataFormatError) -> str:
    """Return an error's message without the place, which the finding names."""
    return str(DataFormatError(error.what, got=error.got, expected=error.expected, fix=error.fix))
