"""Where tiles meet nothing shows, and tiling computes few pixels twice."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from vrtspike.config.model import ModelSettings
from vrtspike.model import build_model
from vrtspike.restoration.segment_worker import RestoreSettings
from vrtspike.restoration.tiled import restore
from vrtspike.restoration.tiling import Tile, cover, spans

TILE, OVERLAP = 48, 24
HEIGHT, WIDTH, FRAMES = 77, 85, 7


@pytest.fixture(scope="module")
def model(tiny: ModelSettings) -> nn.Module:
    torch.manual_seed(0)
    return build_model(tiny).eval()


@pytest.fixture(scope="module")
def clip() -> tuple[Tensor, Tensor]:
    """Return frames and voxels of an odd size, smooth as pictures are."""
    coarse = torch.rand(FRAMES, 7, 12, 15, generator=torch.Generator().manual_seed(1))
    fine = nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    return fine[:, :3], fine[:, 3:]


def cut_hard(length: int, tile: int | None, overlap: int, *, multiple: int = 1) -> list[Tile]:
    """Cover an axis with tiles that are cut in the middle of what they share, unblended."""
    parts = spans(length, tile, overlap, multiple=multiple)
    cuts = [0, *((before[1] + after[0]) // 2 for before, after in pairwise(parts)), length]
    tiles = []
    for (start, stop), (first, last) in zip(parts, pairwise(cuts), strict=True):
        weights = torch.zeros(stop - start)
        weights[first - start : last - start] = 1
        tiles.append(Tile(start, stop, weights))
    return tiles


def jumps(difference: Tensor, tiles: list[Tile]) -> float:
    """Return how much a difference jumps where a tile's weight begins or ends, over elsewhere."""
    ends = set()
    for tile in tiles:
        counts = tile.weights.nonzero().flatten()
        ends |= {tile.start + int(counts[0]), tile.start + int(counts[-1]) + 1}
    steps = difference.diff(dim=-1).abs().flatten(0, -2).mean(dim=0)
    at = torch.tensor([place in ends for place in range(1, difference.shape[-1])])
    return float(steps[at].mean() / steps[~at].mean())


class WideBlur(nn.Module):
    """A stand-in that sees further than tiles overlap, and zeros beyond their border."""

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        video = blurred.movedim(2, 1)
        for axis, size in ((2, 5), (3, 41), (4, 41)):
            window = torch.hann_window(size + 2)[1:-1]
            shape = [size if axis == each else 1 for each in range(5)]
            kernel = (window / window.sum()).view(shape).expand(3, *shape[1:])
            padding = tuple(side // 2 for side in shape[2:])
            video = nn.functional.conv3d(video, kernel, padding=padding, groups=3)
        return video.movedim(1, 2)


AXES = {
    "columns": ({"tile": TILE, "overlap": OVERLAP}, -1, (WIDTH, TILE, OVERLAP), 8),
    "rows": ({"tile": TILE, "overlap": OVERLAP}, -2, (HEIGHT, TILE, OVERLAP), 8),
    "frames": ({"tile_frames": 4, "overlap_frames": 2}, -4, (FRAMES, 4, 2), 1),
}


def jumps_of(
    model: nn.Module, clip: tuple[Tensor, Tensor], axis: str, whole: Tensor, tiles: list[Tile]
) -> float:
    settings, at, _, _ = AXES[axis]
    difference = restore(model, *clip, **settings) - whole
    assert difference.abs().max() > 1e-4
    return jumps(difference.movedim(at, -1), tiles)


@pytest.mark.parametrize("axis", AXES)
def test_the_model_differs_at_seams_no_more_than_elsewhere(
    model: nn.Module, clip: tuple[Tensor, Tensor], axis: str
) -> None:
    _, _, layout, multiple = AXES[axis]
    tiles = cover(*layout, multiple=multiple)
    assert jumps_of(model, clip, axis, restore(model, *clip), tiles) <= 1.0


@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_blended_tiles_show_no_seams_where_tiles_that_are_cut_do(
    clip: tuple[Tensor, Tensor], axis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, layout, multiple = AXES[axis]
    model = WideBlur()
    whole = restore(model, *clip)
    blended = jumps_of(model, clip, axis, whole, cover(*layout, multiple=multiple))
    # The package's `restore` is the function.
    monkeypatch.setattr(sys.modules["vrtspike.restoration.tiled"], "cover", cut_hard)
    cut = jumps_of(model, clip, axis, whole, cut_hard(*layout, multiple=multiple))
    assert blended < 1.2 and cut > 4.0  # measured: about 1 and 6


def computed_over_frame(height: int, width: int, frames: int, tile: int = 384) -> float:
    """Return the pixels that restoring a video computes over those that it has."""
    settings = RestoreSettings()
    over = sum(window.stop - window.start for window in settings.windows(frames)) / frames
    for length in (height, width):
        parts = spans(length, tile, settings.overlap, multiple=8)
        over *= sum(stop - start for start, stop in parts) / length
    return over


def test_tiles_of_720p_compute_few_pixels_twice() -> None:
    """100 frames in windows of 12 and tiles of 384: the published script computes 2.0 times."""
    assert computed_over_frame(720, 1280, 100) <= 1.35
    assert computed_over_frame(720, 1280, 100, tile=1280) == pytest.approx(1.2)


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_any_length_is_covered_by_windows_of_which_a_frame_lies_in_few(overlap: int) -> None:
    for length in range(2, 101):
        windows = cover(length, 6, overlap)
        total = torch.zeros(length)
        for window in windows:
            assert 0 <= window.start < window.stop <= length
            assert window.stop - window.start <= 6
            total[window.start : window.stop] += window.weights
        assert torch.allclose(total, torch.ones(length))
        assert all(a.stop - b.start >= overlap for a, b in pairwise(windows))
