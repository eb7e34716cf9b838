"""The sound of a video file, for another file of the same pictures.

In: a container to write, and the file that has the sound. Out: its audio streams in the container,
each packet as it is, at the time that it has. A stream of a kind that the container does not hold
is decoded and encoded anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

import av

from vrtspike.errors import ConfigError, one_line
from vrtspike.video.inspect import VideoInfo, decoding, opened_video

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

    SoundPacket = av.Packet[av.AudioStream]

ENCODER = "aac"
"""What sound is encoded with; all containers hold it, and FFmpeg always has it."""
BITS_A_CHANNEL = 96_000
"""A second, for sound that is encoded."""
KEPT_TAGS = ("language", "title")


class Sound:
    """The audio streams of a file, written bit by bit beside the pictures."""

    def __init__(
        self, container: OutputContainer, like: VideoInfo | None, lead: Fraction = Fraction(0)
    ) -> None:
        """Add the streams to a container; `lead` seconds of sound are left out at the start."""
        self._target = container
        self._lead = lead
        self._opened = ExitStack()
        self._writers: dict[int, Callable[[SoundPacket], None]] = {}
        self._packets: Iterator[SoundPacket] = iter(())
        self._ahead: SoundPacket | None = None
        if like is not None and like.has_audio:
            source, _ = self._opened.enter_context(opened_video(like.path))
            for stream in source.streams.audio:
                self._writers[stream.index] = self._writer(like, stream)
            self._packets = _read(like, source)

    def __enter__(self) -> Sound:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def write_until(self, time: Fraction | None) -> None:
        """Write the sound before a time in seconds, or, if it is None, all that is left."""
        while (packet := self._next_until(time)) is not None:
            if packet.pts is None or not self._is_before(packet):
                self._writers[packet.stream.index](packet)

    def _next_until(self, time: Fraction | None) -> SoundPacket | None:
        """Take the next packet, unless it is for later, or there is none."""
        packet = next(self._packets, None) if self._ahead is None else self._ahead
        self._ahead = None
        if packet is None or packet.dts is None or time is None:
            return packet
        if packet.dts * packet.time_base - self._lead <= time:
            return packet
        self._ahead = packet
        return None

    def _is_before(self, packet: SoundPacket) -> bool:
        """Move a packet by the lead, and tell whether nothing of it is left."""
        if not self._lead:
            return False
        shift = round(self._lead / packet.time_base)
        assert packet.pts is not None
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        return packet.pts + (packet.duration or 0) <= 0

    def _writer(self, like: VideoInfo, stream: av.AudioStream) -> Callable[[SoundPacket], None]:
        """Add a stream for another one's sound, and return what writes its packets there."""
        if _holds(self._target, stream):
            copied = self._target.add_stream_from_template(stream)
            _copy_tags(stream, copied)

            def copy(packet: SoundPacket) -> None:
                if packet.size:
                    packet.stream = copied
                    self._target.mux(packet)

            return copy
        encoded = self._add_encoder(like, stream)

        def encode(packet: SoundPacket) -> None:
            with decoding(like.path):
                pieces = stream.decode(packet)
            for piece in pieces if packet.size else [*pieces, None]:
                self._target.mux(encoded.encode(piece))

        return encode

    def _add_encoder(self, like: VideoInfo, stream: av.AudioStream) -> av.AudioStream:
        """Add a stream that sound is encoded for, at the nearest rate that the encoder has."""
        try:
            rates = av.Codec(ENCODER, "w").audio_rates or [stream.rate]
            rate = min(rates, key=lambda rate: abs(rate - stream.rate))
            encoded = self._target.add_stream(ENCODER, rate=rate)
            assert isinstance(encoded, av.AudioStream)
            layout = stream.layout.name
            # Files of PCM say how many channels they have, not where these are heard.
            unnamed = layout.endswith("channels")
            encoded.codec_context.layout = f"{stream.channels}c" if unnamed else layout
            encoded.bit_rate = BITS_A_CHANNEL * stream.channels
            encoded.codec_context.open()
        except (av.error.FFmpegError, AttributeError, ValueError) as error:
            raise ConfigError(
                "the container does not hold the video's sound, nor can that be encoded anew",
                where=like.path,
                got=one_line(error, 160),
                fix="write a .mkv file, or take the sound out: ffmpeg -i IN -an -c copy OUT",
            ) from error
        _copy_tags(stream, encoded)
        return encoded


def _holds(container: OutputContainer, stream: av.AudioStream) -> bool:
    """Tell whether a container of this kind takes packets of a stream as they are."""
    kind = container.format.name
    if stream.codec_context is None:
        return False
    # FFmpeg puts PCM into .mp4 in a way that few players know.
    if kind == "mp4" and stream.codec_context.name.startswith("pcm_"):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _read(like: VideoInfo, source: InputContainer) -> Iterator[SoundPacket]:
    """Yield the packets of sound in the order of the file.

    Where the times of a stream go back, as where files were joined, the rest follows what was
    before: no container takes times that go back.
    """
    ends, shifts = dict[int, int](), dict[int, int]()
    with decoding(like.path):
        for packet in source.demux(source.streams.audio):
            if packet.dts is not None and packet.pts is not None:
                stream = packet.stream.index
                shift, end = shifts.get(stream, 0), ends.get(stream)
                if end is not None and packet.dts + shift < end - (packet.duration or 0):
                    shift = shifts[stream] = end - packet.dts
                packet.dts += shift
                packet.pts += shift
                ends[stream] = packet.dts + (packet.duration or 0)
            yield packet


def _copy_tags(source: av.AudioStream, target: av.AudioStream) -> None:
    """Say the same of a stream as of another one."""
    target.metadata.update({k: v for k, v in source.metadata.items() if k in KEPT_TAGS})
