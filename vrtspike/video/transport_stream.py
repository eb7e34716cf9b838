"""MPEG transport streams: is a gap in the count of packets a join, or are packets lost?

In: a file of packets of 188 bytes (or of 192, with 4 bytes of time before each) and the number
(PID) of one of its streams. Each packet of a stream carries a count from 0 to 15. Where two files
were joined, as segments of HLS are, the count jumps at a key frame behind a new table of programs;
anywhere else a jump says that packets are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SYNC, LENGTH, STAMPED = 0x47, 188, 192
PROGRAMS = 0
"""The PID of the table of programs, with which a stream begins."""


def has_lost_packets(path: Path, pid: int) -> bool:
    """Tell whether packets of a stream are missing, or marked as damaged."""
    count: int | None = None
    begun = True
    for packet in _packets(path):
        found = (packet[1] & 0x1F) << 8 | packet[2]
        begun = begun or found == PROGRAMS
        if found != pid or not packet[3] & 0x10:  # without content the count stands still
            continue
        if packet[0] != SYNC or packet[1] & 0x80:
            return True
        # A picture begins here, from which decoding can begin.
        has_field = packet[3] & 0x20 and packet[4]
        new_picture = packet[1] & 0x40 and has_field and packet[5] & 0x40
        now = packet[3] & 0x0F
        in_count = count is None or now in (count, (count + 1) % 16)
        if not in_count and not (begun and new_picture):
            return True
        count, begun = now, False
    return False


def _packets(path: Path) -> Iterator[bytes]:
    """Yield the packets of a file, each from its first byte."""
    with path.open("rb") as file:
        head = file.read(STAMPED + 5)
        stamped = len(head) > STAMPED + 4 and head[4] == head[STAMPED + 4] == SYNC
        length, skip = (STAMPED, 4) if stamped and head[0] != SYNC else (LENGTH, 0)
        file.seek(0)
        while len(packet := file.read(length)) == length:
            yield packet[skip:]
