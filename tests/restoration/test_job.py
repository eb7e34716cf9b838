"""Clips restored in pieces, over several starts, are those restored in one; none stops another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.restoration.clip_files import (
    SETTINGS,
    Job,
    Placed,
    Scattered,
    as_model_sees,
    backwards,
    everything,
    images_of,
    shuffled,
    whole,
    write_clip,
)
from vrtspike.errors import DataFormatError
from vrtspike.restoration.job import SegmentResult, restore_clips
from vrtspike.restoration.segment_worker import RestoreSettings, Segment, SegmentWorker
from vrtspike.restoration.workspace import Workspace

Order = Callable[[Sequence[Segment]], Sequence[Segment]]


@pytest.mark.parametrize(
    ("windows", "workers", "order"),
    [
        ((2, 1), 3, backwards),
        ((4, 2), 1, None),
        ((4, 2), 3, shuffled),
        ((5, 1), 9, shuffled),
        ((6, 3), 1, backwards),
        ((12, 2), 3, shuffled),
    ],
)
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 25])
def test_pieces_in_any_order_equal_the_whole(
    tmp_path: Path, frames: int, windows: tuple[int, int], workers: int, order: Order | None
) -> None:
    clip = write_clip(tmp_path, frames)
    settings = RestoreSettings(tile_frames=windows[0], overlap_frames=windows[1])
    job = Job(clip.place, clip.stream, tmp_path / "out", settings=settings)
    job.workers, job.order = workers, order
    (result,) = job.run()
    assert (result.state, result.frames, result.tiles) == ("done", frames, (None,))
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, settings))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "spikes"]


def test_three_windows_may_share_a_frame(tmp_path: Path) -> None:
    windows = SETTINGS.windows(7)
    assert sum(window.start <= 3 < window.stop for window in windows) == 3
    clip = write_clip(tmp_path, 7)
    Job(clip.place, clip.stream, tmp_path / "out", workers=9, order=shuffled).run()
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, SETTINGS))


def test_tiles_of_pieces_equal_tiles_of_the_whole(tmp_path: Path) -> None:
    clip, settings = write_clip(tmp_path, 9), replace(SETTINGS, tile=16)
    job = Job(clip.place, clip.stream, tmp_path / "out", settings=settings)
    (result,) = job.run()
    assert result.tiles == (16,)
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, settings))
    assert len(job.model.seen) == 2 * len(settings.windows(9))


def test_progress_counts_every_frame_of_every_clip(tmp_path: Path) -> None:
    for number, frames in enumerate((9, 1, 4)):
        write_clip(tmp_path, frames, f"clip {number}")
    job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "out")
    assert [result.frames for result in job.run()] == [9, 1, 4]
    assert {total for _, total in job.heard} == {14}
    done = [done for done, _ in job.heard]
    assert done == sorted(done) and (done[0], done[-1]) == (0, 14)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("patience", [1, 3, 8])
def test_what_was_done_before_a_stop_is_not_done_again(
    tmp_path: Path, patience: int, workers: int
) -> None:
    clip = write_clip(tmp_path, 25)
    for start in range(100):
        # Another number of workers at each start cuts what is left in other places.
        job = Job(clip.place, clip.stream, tmp_path / "out", workers=workers + start % 2)
        job.order, job.model.stop_after = shuffled, patience
        workspace = Workspace(tmp_path / ".restoring-out", ())
        done = {n for facts in workspace.done() for n in range(facts["first"], facts["stop"])}
        windows = SETTINGS.windows(25)
        kept = {
            as_model_sees(clip.frames[w.start : w.stop]) for n, w in enumerate(windows) if n in done
        }
        try:
            (result,) = job.run()
        except KeyboardInterrupt:
            assert not (tmp_path / "out").exists()
            continue
        finally:
            assert not kept & set(job.model.seen), "a window was restored again"
        break
    assert (result.state, result.frames) == ("done", 25)
    assert start == 0 or job.heard[0][0] > 0
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, SETTINGS))
    assert not (tmp_path / ".restoring-out").exists()


def test_a_stop_while_progress_is_shown_loses_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 25)

    class Stopping(list):  # type: ignore[type-arg]
        def append(self, done: tuple[int, int]) -> None:
            super().append(done)
            if len(self) == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Job(clip.place, clip.stream, tmp_path / "out", heard=Stopping()).run()
    job = Job(clip.place, clip.stream, tmp_path / "out")
    assert job.run()[0].state == "done"
    assert len(job.model.seen) < len(SETTINGS.windows(25)) and job.heard[0][0] > 0
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, SETTINGS))


@pytest.mark.parametrize("workers", [1, 2, 50])
def test_shares_of_a_segment_that_was_not_done_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    clip = write_clip(tmp_path, 34)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Workspace, "mark_done", stop)
        Job(clip.place, clip.stream, tmp_path / "out", order=lambda found: found[2:]).run()
    assert list((tmp_path / ".restoring-out").glob("part-*"))
    job = Job(clip.place, clip.stream, tmp_path / "out", workers=workers, order=shuffled)
    assert job.run()[0].state == "done"
    np.testing.assert_array_equal(images_of(tmp_path / "out"), whole(clip, SETTINGS))


def stopped(tmp_path: Path) -> Job:
    """Return a job of 13 frames that was stopped on its way."""
    clip = write_clip(tmp_path, 13)
    job = Job(clip.place, clip.stream, tmp_path / "out")
    job.model.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert list((tmp_path / ".restoring-out").glob("done-*.json"))
    return replace(job, model=Placed(), heard=[])


def test_another_input_other_weights_and_other_settings_start_anew(tmp_path: Path) -> None:
    changes = [
        ("weights", lambda job: replace(job, weights="others")),
        ("settings", lambda job: replace(job, settings=replace(SETTINGS, precision="bfloat16"))),
        ("spikes", lambda job: job.spikes.write_bytes(job.spikes.read_bytes()[::-1]) and job),
        ("frame", lambda job: (job.footage / "005.png").touch() or job),
    ]
    for name, change in changes:
        job = change(stopped(tmp_path / name))
        (result,) = job.run()
        windows = len(job.settings.windows(13))
        assert (result.state, len(job.model.seen)) == ("done", windows), name
        assert job.heard[0] == (0, 13)


def test_more_memory_does_not_start_anew(tmp_path: Path) -> None:
    job = replace(stopped(tmp_path), settings=replace(SETTINGS, memory=10**10))
    job.run()
    assert len(job.model.seen) < len(SETTINGS.windows(13))


def test_a_clip_that_another_process_restores_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 5)
    write_clip(tmp_path, 3, "other")
    workspace = Workspace(tmp_path / "out" / ".restoring-clip", ())
    with workspace.begun({}, DataFormatError("held")):
        job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "out")
        held, other = job.run()
    assert (held.state, other.state) == ("failed", "done")
    assert held.error is not None and "by another process" in held.error
    assert not (tmp_path / "out" / "clip").exists()
    again, there = replace(job, model=Placed()).run()
    assert (again.state, there.state) == ("done", "there")
    np.testing.assert_array_equal(images_of(tmp_path / "out" / "clip"), whole(clip, SETTINGS))


@pytest.mark.parametrize("fault", ["not an image", "not finite", "failed unexpectedly"])
def test_a_clip_that_fails_stops_no_other(tmp_path: Path, fault: str) -> None:
    clips = [write_clip(tmp_path, 25, name, seed) for seed, name in enumerate("abc")]
    job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "out")
    if fault == "not an image":
        (clips[1].place / "012.png").write_bytes(b"spoilt")
    else:
        # Frames of this clip alone make the model fail.
        job.model.faults[as_model_sees(clips[1].frames[12:13])] = fault
    results = job.run()
    assert [result.state for result in results] == ["done", "failed", "done"]
    assert fault in str(results[1].error) and "\n" not in str(results[1].error)
    for clip, name in ((clips[0], "a"), (clips[2], "c")):
        np.testing.assert_array_equal(images_of(tmp_path / "out" / name), whole(clip, SETTINGS))
    assert not (tmp_path / "out" / "b").exists()
    # The windows after the one that failed are left alone.
    assert len(job.model.seen) < 3 * len(SETTINGS.windows(25)) - 3


def last_first(segments: Sequence[Segment]) -> Sequence[Segment]:
    return [segments[-1], *segments[:-1]]


class HeardAfterwards(Scattered):
    """Workers that are heard after all have ended, a clip's end first."""

    def run(
        self, segments: Sequence[Segment], progress: Callable[[int], None]
    ) -> Iterator[SegmentResult]:
        results = super().run(segments, progress)
        yield from sorted(results, key=lambda result: -result.segment.first)


def test_a_segment_that_was_left_alone_is_never_taken_for_done(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, 13)
    (clip.place / "004.png").write_bytes(b"spoilt")
    job = Job(clip.place, clip.stream, tmp_path / "out")
    worker = SegmentWorker(job.restorer, SETTINGS, torch.device("cpu"))
    # Heard: segments that were left alone, among them a neighbour of the last, which was done.
    runner = HeardAfterwards(worker, 2, last_first)
    (failed,) = restore_clips(job.plan(), runner, lambda *done: None)
    assert failed.state == "failed"
    assert str(failed.error).startswith("not an image") and "004.png" in str(failed.error)


def test_a_clip_that_was_repaired_is_the_only_one_that_is_done_again(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_clip(tmp_path, 5, name, seed)
    stream = tmp_path / "spikes" / "b.dat"
    content = stream.read_bytes()
    stream.write_bytes(content[:-1])
    job = Job(tmp_path / "in", tmp_path / "spikes", tmp_path / "out")
    assert [result.state for result in job.run()] == ["done", "failed"]
    before = everything(tmp_path / "out" / "a")
    stream.write_bytes(content)
    job = replace(job, model=Placed(), heard=[])
    assert [result.state for result in job.run()] == ["there", "done"]
    assert len(job.model.seen) == len(SETTINGS.windows(5))
    assert job.heard[-1] == (5, 5)
    assert everything(tmp_path / "out" / "a") == before
