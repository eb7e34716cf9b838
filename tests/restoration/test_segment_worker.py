"""A segment reads, restores and writes its windows, and says what is wrong with them."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.restoration.clip_files import (
    BINS,
    CAMERA,
    EXPOSURE,
    SEEN,
    SETTINGS,
    SIZE,
    Placed,
    Written,
    images_of,
    voxels_of,
    whole,
    write_clip,
)
from tests.spikes.naive_voxels import voxelize
from vrtspike.datasets.footage import Footage, Source, open_footage
from vrtspike.errors import ConfigError, DataFormatError, ResourceError
from vrtspike.restoration.memory import Footprint
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.segment_worker import (
    RestoreSettings,
    Segment,
    SegmentWorker,
    check_model,
    footprint_of,
)
from vrtspike.restoration.workspace import Workspace

CPU = torch.device("cpu")


@pytest.fixture
def clip(tmp_path: Path) -> Written:
    return write_clip(tmp_path, 13)


@pytest.fixture
def footage(clip: Written) -> Footage:
    return open_footage(Source("clip", clip.place, clip.stream), CAMERA)


@pytest.fixture
def workspace(tmp_path: Path, footage: Footage) -> Workspace:
    workspace = Workspace(
        tmp_path / "workspace", tuple(frame.name for frame in footage.clip.frames)
    )
    with workspace.begun({}, ResourceError("taken")):
        pass
    return workspace


def worker_of(model: nn.Module, settings: RestoreSettings = SETTINGS) -> SegmentWorker:
    return SegmentWorker(Restorer(model, SEEN), settings, CPU)


def test_frames_of_its_own_are_images_and_others_are_shares(
    footage: Footage, workspace: Workspace
) -> None:
    windows = SETTINGS.windows(13)
    assert [(w.start, w.stop) for w in windows[2:4]] == [(3, 7), (5, 9)] and windows[4].start == 7
    heard: list[int] = []
    facts = worker_of(Placed()).restore(Segment(footage, workspace, 2, 4), heard.append)
    assert sorted(p.name for p in workspace.folder.glob("part-*")) == [
        *("part-3-2.npy", "part-4-2.npy", "part-7-2.npy", "part-8-2.npy")
    ]
    assert sorted(p.stem for p in workspace.frames.iterdir()) == ["005", "006"]
    assert (facts["frames"], facts["tile"]) == (6, None) and sum(heard) == 6
    assert facts["seconds"] > 0 and facts["memory"] > 10**7
    assert workspace.open_windows(len(windows)) == [range(0, 2), range(4, len(windows))]


def test_a_segment_of_all_windows_is_the_whole(
    clip: Written, footage: Footage, workspace: Workspace
) -> None:
    worker_of(Placed()).restore(Segment(footage, workspace, 0, len(SETTINGS.windows(13))))
    assert not list(workspace.folder.glob("part-*"))
    np.testing.assert_array_equal(images_of(workspace.frames), whole(clip, SETTINGS))


class Small(Placed):
    """Run out of memory where a tile is larger than some pixels."""

    def __init__(self, most: int, message: str) -> None:
        super().__init__()
        self.most, self.message, self.sizes = most, message, []

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        self.sizes.append(max(blurred.shape[-2:]))
        if self.sizes[-1] > self.most:
            raise RuntimeError(self.message)
        return super().forward(blurred, voxels)


NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."


def test_out_of_memory_takes_smaller_tiles_from_then_on(
    clip: Written, footage: Footage, workspace: Workspace
) -> None:
    model = Small(16, NO_MEMORY)
    worker = worker_of(model)
    facts = worker.restore(Segment(footage, workspace, 0, 2))
    assert facts["tile"] == 16 and model.sizes[0] == 24 and set(model.sizes[1:]) == {16}
    worker.restore(Segment(footage, workspace, 2, len(SETTINGS.windows(13))))
    assert model.sizes.count(24) == 1
    workspace.add_up(SETTINGS.windows(13), workspace.segments())
    expected = whole(clip, replace(SETTINGS, tile=16))
    np.testing.assert_array_equal(images_of(workspace.frames), expected)


@pytest.mark.parametrize("tile", [None, 16])
def test_out_of_memory_ends_in_one_line(
    footage: Footage, workspace: Workspace, tile: int | None
) -> None:
    model = Small(1, NO_MEMORY)
    with pytest.raises(ResourceError, match=r"out of memory.*tiles of 16 pixels.*Fix"):
        worker_of(model, replace(SETTINGS, tile=tile)).restore(Segment(footage, workspace, 0, 1))
    assert len(model.sizes) == (1 if tile else 2), "a tile that was given is kept to"
    assert not workspace.done()


def test_other_failures_are_not_taken_for_memory(footage: Footage, workspace: Workspace) -> None:
    model = Small(1, "expected scalar type Float")
    with pytest.raises(RuntimeError, match="scalar type"):
        worker_of(model).restore(Segment(footage, workspace, 0, 1))
    assert len(model.sizes) == 1


@pytest.mark.parametrize("method", ["write_frame", "write_share"])
def test_what_cannot_be_written_is_not_done(
    footage: Footage, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*_: object) -> None:
        raise DataFormatError("cannot write the file: No space left on device")

    monkeypatch.setattr(Workspace, method, fail)
    with pytest.raises(DataFormatError, match="No space left"):
        worker_of(Placed()).restore(Segment(footage, workspace, 1, 3))
    assert not workspace.done()


def test_a_model_and_a_clip_must_both_have_spikes_or_none(footage: Footage, clip: Written) -> None:
    blind = open_footage(Source("blind", clip.place, None))
    fused, plain = Restorer(Placed(), SEEN), Restorer(Placed())
    check_model(footage, fused)
    check_model(blind, plain)
    with pytest.raises(ConfigError, match=r"there are none \[blind\].*--spikes"):
        check_model(blind, fused)
    with pytest.raises(ConfigError, match=r"takes no spikes \[clip\].*leave --spikes away"):
        check_model(footage, plain)


def test_a_model_is_given_what_it_was_trained_on(
    footage: Footage, clip: Written, workspace: Workspace
) -> None:
    (first, last), seen = EXPOSURE, []

    class Keeping(Placed):
        def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
            seen.append(voxels)
            return blurred

    for voxels in ("rate", "log1p"):
        represent = replace(SEEN, voxels=voxels)
        worker = SegmentWorker(Restorer(Keeping(), represent), SETTINGS, CPU)
        worker.restore(Segment(footage, workspace, 0, 1))
    rates, logs = (given[0] for given in seen)
    assert torch.equal(rates, voxels_of(clip)[:4].float())
    counts = [voxelize(frame, BINS, start=first, stop=last) for frame in clip.spikes[:4]]
    expected = torch.from_numpy(np.stack(counts)).float().log1p()
    torch.testing.assert_close(logs, expected, rtol=2**-11, atol=0)  # float16


def test_the_sizes_are_those_of_the_longest_window(footage: Footage) -> None:
    fused = footprint_of(footage, Restorer(Placed(), SEEN), SETTINGS)
    assert fused == Footprint(*SIZE, frames=4, spike_grid=SIZE, spike_channels=BINS, spike_steps=8)
    longer = replace(SETTINGS, tile_frames=50)
    assert footprint_of(footage, Restorer(Placed()), longer) == Footprint(*SIZE, frames=13)


def test_steps_of_the_neighbours_that_windows_reach_into_count_too(footage: Footage) -> None:
    model = Placed()
    model.unit = 32
    represent = replace(SEEN, windows=(0.5, 1.5), interval=True)
    found = footprint_of(footage, Restorer(model, represent), SETTINGS)
    assert (found.spike_channels, found.spike_steps, found.unit) == (BINS + 3, 3 * 8, 32)
    info = footage.clip.info.model_copy(update={"continuous": False})
    assert Footprint.of(info, 4, represent).spike_steps == 8


def test_a_window_is_read_while_another_is_computed(
    footage: Footage, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    from vrtspike.datasets.footage import FootageReader

    plain = FootageReader.frames

    def frames(self: FootageReader, start: int, stop: int) -> Any:
        read.append(start)
        return plain(self, start, stop)

    class Asking(Placed):
        def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
            for _ in range(1000):
                if len(read) > len(self.seen) + 1:
                    break
                os.sched_yield()
                torch.zeros(10_000)
            ahead.append(len(read) - len(self.seen))
            return super().forward(blurred, voxels)

    ahead: list[int] = []
    monkeypatch.setattr(FootageReader, "frames", frames)
    worker_of(Asking()).restore(Segment(footage, workspace, 0, 4))
    windows = SETTINGS.windows(13)
    assert read == [window.start for window in windows[:4]], "each once, and none of others"
    assert max(ahead) <= 2 and ahead[0] == 2


def test_the_reason_of_a_full_disk_is_kept(
    footage: Footage, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(DataFormatError, match=r"No space left.*Fix: free space"):
        worker_of(Placed()).restore(Segment(footage, workspace, 0, 6))
    assert list(workspace.frames.iterdir()) == []
