"""The tile is the one that computes least among those that fit the memory."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch

from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, ResourceError
from vrtspike.restoration import memory
from vrtspike.restoration.memory import Footprint, budget_of, choose_tile, parse_bytes
from vrtspike.restoration.tiling import spans

PER_PIXEL, TAKEN, CPU = 1000.0, 10**9, torch.device("cpu")
Choose = Callable[..., int | None]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Return `choose_tile` for a model of 1000 bytes a pixel, in a process of a gigabyte.

    `room` is in pixels beside these and the frames.
    """
    monkeypatch.setattr(memory, "_bytes_per_pixel", lambda *_: PER_PIXEL)
    monkeypatch.setattr(memory, "resident_bytes", lambda: TAKEN)

    def run(size: Footprint, room: float | None, overlap: int = 32) -> int | None:
        bound = None if room is None else TAKEN + size.held + int(room * PER_PIXEL)
        return choose_tile(
            ModelSettings(),
            size,
            overlap=overlap,
            precision="float32",
            device=CPU,
            budget=budget_of(CPU, bound),
        )

    return run


def largest(size: Footprint, tile: int | None, overlap: int) -> int:
    """Return the pixels of the largest tile, padded as the model pads them."""
    sides = [
        max(stop - start for start, stop in spans(length, tile, overlap, multiple=size.unit))
        for length in (size.height, size.width)
    ]
    return math.prod(-(-side // 8) * 8 for side in sides)


def computed(size: Footprint, tile: int | None, overlap: int) -> int:
    """Return the pixels of all tiles."""
    rows, columns = (
        sum(stop - start for start, stop in spans(length, tile, overlap, multiple=size.unit))
        for length in (size.height, size.width)
    )
    return rows * columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GB", 8 * 10**9),
        ("800MB", 8 * 10**8),
        ("6.5GiB", 13 * 2**29),
        (" 2 kib ", 2048),
        ("1T", 10**12),
        ("123456", 123456),
        ("64B", 64),
    ],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-8GB", "8 gigs", "8PB", "8,5GB", "0", "0.0GB", "8iB", "1e9", "8GB 8GB", "inf"],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not an amount of memory \[--memory\].*such as 8GB"):
        parse_bytes(text)


SIZES = [
    Footprint(720, 1280, 12),
    Footprint(85, 109, 4),
    Footprint(50, 400, 4),
    Footprint(720, 1280, 12, (360, 640), 8, 64),
    Footprint(720, 1280, 12, (720, 1280), 8, 64),
    Footprint(120, 360, 4, (40, 120), 8, 64),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_whole_frames_where_there_is_room(choose: Choose, size: Footprint) -> None:
    pixels = largest(size, None, 0)
    assert choose(size, pixels) is None
    assert choose(size, 100 * pixels) is None


@pytest.mark.parametrize("overlap", [0, 16, 32, 40])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_tile_fits_and_computes_least_of_those_that_fit(
    choose: Choose, size: Footprint, overlap: int
) -> None:
    least = max(64, 2 * -(-overlap // size.unit) * size.unit)
    usable = range(-(-least // size.unit) * size.unit, max(size.height, size.width), size.unit)
    chosen = 0
    for share in (0.05, 0.2, 0.4, 0.7, 0.95):
        room = share * largest(size, None, 0)
        fits = [tile for tile in usable if largest(size, tile, overlap) <= room]
        if not fits:
            with pytest.raises(ResourceError):
                choose(size, room, overlap)
            continue
        tile = choose(size, room, overlap)
        assert tile is not None and tile % size.unit == 0
        assert largest(size, tile, overlap) <= room
        best = min(computed(size, other, overlap) for other in fits)
        assert computed(size, tile, overlap) == best
        chosen += 1
    assert chosen or min(size.height, size.width) < 130


def test_more_memory_never_computes_more(choose: Choose) -> None:
    size = SIZES[0]
    found = [choose(size, share / 20 * 720 * 1280) for share in range(1, 21)]
    work = [computed(size, tile, 32) for tile in found]
    assert work == sorted(work, reverse=True) and found[-1] is None
    assert len(set(work)) > 4


@pytest.mark.parametrize(
    ("grid", "unit"),
    [(None, 8), ((720, 1280), 8), ((360, 640), 8), ((240, 320), 24), ((72, 128), 40)],
)
def test_tiles_end_between_spike_pixels(grid: tuple[int, int] | None, unit: int) -> None:
    size = Footprint(720, 960 if grid == (240, 320) else 1280, 4, grid, 8, 64)
    assert size.unit == unit and size.tiled


def test_a_grid_that_does_not_divide_the_frame_allows_whole_frames_only(choose: Choose) -> None:
    size = Footprint(100, 100, 4, (64, 48), 8, 64)
    assert not size.tiled
    assert choose(size, 104 * 104) is None
    with pytest.raises(ResourceError, match="smallest tile"):
        choose(size, 104 * 104 - 1)


def test_what_does_not_fit_is_refused_with_numbers_that_are_enough(choose: Choose) -> None:
    for size in SIZES:
        with pytest.raises(ResourceError, match=r"too small .*got .* GB, expected .*--memory") as e:
            choose(size, 1000)
        needed = float(re.findall(r"([\d.]+) GB at least", str(e.value))[0]) * 1e9
        # The number is rounded to a hundredth of a GB.
        room = (needed + 5e6 - TAKEN - size.held) / PER_PIXEL
        choose(size, room)
        with pytest.raises(ResourceError):
            choose(size, room - 2e7 / PER_PIXEL)


def test_without_a_bound_a_share_of_what_is_free_is_taken(
    choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = SIZES[0]
    for free in (10**9, 3 * 10**9):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: free)
        assert memory.free_for_all() == int(0.6 * free)
        room = (0.6 * free - size.held) / PER_PIXEL
        assert choose(size, None) == choose(size, room)
    assert choose(size, None) is None


def test_frames_and_voxels_of_the_windows_at_hand_are_counted() -> None:
    for frames, bins, steps in product((2, 12), (4, 8), (8, 64)):
        size = Footprint(40, 48, frames, (20, 24), bins, steps)
        pixels, grid = 40 * 48 * 3 * frames, 20 * 24
        # float16 voxels of two windows, and a frame's steps twice.
        assert size.held == 12 * pixels + 2 * 2 * frames * bins * grid + 2 * steps * grid
        assert Footprint(40, 48, frames).held == 12 * pixels


def test_a_models_own_costs_decide(tiny: ModelSettings) -> None:
    size = Footprint(256, 256, 2, (256, 256), 4, 64)

    def tile(bound: int) -> int | None:
        budget = budget_of(CPU, bound)
        return choose_tile(tiny, size, overlap=16, precision="float32", device=CPU, budget=budget)

    taken = memory.resident_bytes() + size.held
    per_pixel = memory._bytes_per_pixel(tiny, 2, "float32", "cpu")
    # Frames of three channels and four bins, of float32, and features of eight channels at least.
    assert 4 * 2 * (3 + 4 + 4 * 8) < per_pixel < 10**5
    assert tile(taken + int(1.2 * 256 * 256 * per_pixel)) is None
    assert tile(taken + int(0.8 * 256 * 256 * per_pixel)) in range(64, 256, 8)
