"""Small video files of every kind that tests need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from skimage import data

Frames = list[NDArray[np.uint8]]


def moving(count: int, height: int = 48, width: int = 64) -> Frames:
    """Return frames of a photograph that moves 2 pixels a frame."""
    photograph = data.astronaut()
    return [
        photograph[40 + n : 40 + n + height, 40 + 2 * n : 40 + 2 * n + width].copy()
        for n in range(count)
    ]


def tone(rate: int, seconds: float) -> NDArray[np.float32]:
    """Return a sound whose pitch rises, so that no two instants of it are alike."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * time + 150 * time**2))).astype(np.float32)


@dataclass(frozen=True)
class Track:
    """Sound to encode beside the pictures."""

    codec: str = "aac"
    rate: int = 48_000
    layout: str = "stereo"
    offset: float = 0.0
    """Seconds between the first picture and the first sample."""
    seconds: float = 1.6
    language: str = "deu"


def encode(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    rate: int = 25,
    milliseconds: Sequence[int] | None = None,
    tracks: Sequence[Track] = (),
    pix_fmt: str = "yuv420p",
    colour: tuple[int, int] | None = None,
    **context: Any,
) -> Path:
    """Encode frames, at a rate or at times, with sound; `colour` is (matrix, range) by number."""
    with av.open(str(path), "w", options=muxing or {}) as container:
        video: Any = container.add_stream(codec, rate=rate, options=options or {})
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], pix_fmt
        rotation = context.pop("rotation", None)
        if rotation is not None:
            video.set_display_rotation(*rotation)
        if milliseconds is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if colour is not None:
            video.codec_context.colorspace, video.codec_context.color_range = colour
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        sounds = [_Sound(container, track) for track in tracks]
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if colour is not None:
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace={1: 1, 6: 5, 9: 9}[colour[0]],
                    dst_color_range=colour[1],
                )
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for sound in sounds:
            sound.write()
    return path


class _Sound:
    """One track, added to a container before anything is written."""

    def __init__(self, container: Any, track: Track) -> None:
        self.container, self.track = container, track
        self.stream = container.add_stream(track.codec, rate=track.rate)
        self.stream.codec_context.layout = track.layout
        self.stream.metadata["language"] = track.language

    def write(self) -> None:
        """Write all of it; the muxer puts it between the pictures."""
        track = self.track
        samples = tone(track.rate, track.seconds)
        channels = self.stream.codec_context.layout.nb_channels
        for start in range(0, len(samples), 1024):
            piece = np.repeat(samples[start : start + 1024], channels)[None]
            frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=track.layout)
            frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
            frame.pts = start + round(track.offset * track.rate)
            self.container.mux(self.stream.encode(frame))
        self.container.mux(self.stream.encode())


def packets(path: Path, number: int = 0) -> list[tuple[Fraction, bytes]]:
    """Return the times and the bytes of the packets of a file's sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[number]
        found = [p for p in container.demux(stream) if p.size]
        return [(p.pts * p.time_base, bytes(p)) for p in found if p.pts is not None]


def heard(path: Path) -> tuple[float, NDArray[np.float32]]:
    """Return when a file's sound begins, in seconds, and its samples, of the first channel."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp")
        pieces, begin = [], None
        for frame in container.decode(container.streams.audio[0]):
            begin = frame.time if begin is None else begin
            pieces += [np.asarray(p.to_ndarray()[0]) for p in resampler.resample(frame)]
    assert begin is not None
    return begin, np.concatenate(pieces).astype(np.float32)


def psnr(frames: Sequence[NDArray[Any]], truth: Sequence[NDArray[Any]]) -> float:
    """Return the least PSNR in dB of frames."""
    return min(
        float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(np.float64) - b) ** 2))))
        for a, b in zip(frames, truth, strict=True)
    )
