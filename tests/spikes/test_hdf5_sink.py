"""The sink is a file like any other, before and after the disk is full."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest

from vrtspike.spikes.hdf5_sink import Hdf5Sink


@pytest.mark.parametrize("room", [0, 40, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_is_read_whether_the_disk_is_full_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, seed: int
) -> None:
    """Compare with a file in memory; the disk takes `room` bytes, the last write in part."""
    rng = np.random.default_rng(seed)
    left, write = room, os.pwrite

    def on_small_disk(file: int, data: bytes, offset: int) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[:left], offset)
        left -= written
        return written

    monkeypatch.setattr(os, "pwrite", on_small_disk)
    with (tmp_path / "a").open("w+b") as file:
        sink, model = Hdf5Sink(file), io.BytesIO()
        for _ in range(30):
            offset, data = int(rng.integers(100)), rng.bytes(int(rng.integers(1, 20)))
            for one in (sink, model):
                one.seek(offset)
                assert one.write(data) == len(data)
                assert one.tell() == offset + len(data)
            at = int(rng.integers(100))
            model.seek(at)
            sink.seek(at)
            assert sink.read(15) == model.read(15).ljust(15, b"\0")
        assert sink.seek(0, io.SEEK_END) == len(model.getvalue())
        assert sink.seek(-5, io.SEEK_CUR) == len(model.getvalue()) - 5
        sink.truncate(200)
        sink.flush()
        assert sink.seek(0, io.SEEK_END) == 200
        if room == 1000:
            assert sink.error is None
            file.seek(0)
            assert file.read() == model.getvalue().ljust(200, b"\0")
        else:
            assert sink.error is not None and sink.error.errno == errno.ENOSPC
