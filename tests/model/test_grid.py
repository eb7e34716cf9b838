"""One grid of pixels for frames and spikes, and its patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vrtspike.errors import DataFormatError
from vrtspike.model.grid import (
    beside_frames,
    check_voxels,
    crop,
    from_patches,
    on_grid,
    pad_to_unit,
    to_patches,
)


def test_a_coarser_grid_is_interpolated() -> None:
    ramp = (torch.arange(4) + 0.5).expand(2, 3, 5, 4, 4)
    fine = on_grid(ramp, 8, 8)
    assert fine.shape == (2, 3, 5, 8, 8)
    torch.testing.assert_close(fine[1, 2, 4, 3, 1:-1], (torch.arange(1, 7) + 0.5) / 2)
    assert on_grid(ramp, 4, 4) is ramp


@pytest.mark.parametrize("shape", [(1, 3, 4, 8, 8), (2, 0, 4, 8, 8), (2, 3, 5, 8, 8), (2, 4, 8, 8)])
def test_voxels_that_do_not_go_with_the_frames_are_refused(shape: tuple[int, ...]) -> None:
    blurred = torch.rand(2, 3, 3, 8, 8)
    with pytest.raises(DataFormatError, match=r"\(b=2, s, k=4, hs, ws\)"):
        check_voxels(torch.zeros(shape), blurred, 4)
    voxels = torch.zeros(2, 7, 4, 4, 4)
    assert check_voxels(voxels, blurred, 4) is voxels


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_those_of_pixel_unshuffle_and_come_back(patch: int) -> None:
    video = torch.rand(2, 3, 5, 8, 12)
    tokens = to_patches(video, patch)
    assert tokens.shape == (2, 3, 8 // patch, 12 // patch, 5 * patch**2)
    expected = F.pixel_unshuffle(video.flatten(0, 1), patch).unflatten(0, (2, 3))
    assert torch.equal(tokens.movedim(-1, 2), expected)
    assert torch.equal(from_patches(tokens, patch), video)


def test_borders_are_repeated_up_to_the_unit() -> None:
    video = torch.rand(1, 2, 3, 9, 16)
    padded = pad_to_unit(video, 8)
    assert padded.shape == (1, 2, 3, 16, 16)
    assert torch.equal(padded[..., :9, :], video)
    assert torch.equal(padded[..., 9:, :], video[..., -1:, :].expand(1, 2, 3, 7, 16))
    assert torch.equal(crop(padded, 9, 16), video) and crop(padded, 16, 16) is padded
    assert crop(padded, 9, 16)._base is None
    assert pad_to_unit(video[..., :8, :], 8) is not video and pad_to_unit(padded, 16) is padded


def test_spikes_come_to_the_grid_and_instants_of_the_frames() -> None:
    frames = torch.rand(2, 3, 3, 10, 14)
    flat = torch.arange(4.0)[:, None, None].expand(2, 5, 4, 5, 7)
    padded, spikes = beside_frames(frames, flat, channels=4, unit=8)
    assert padded.shape == (2, 3, 3, 16, 16) and spikes is not None
    torch.testing.assert_close(spikes, torch.arange(4.0)[:, None, None].expand(2, 3, 4, 16, 16))
    assert beside_frames(frames, None, channels=0, unit=2)[1] is None
    with pytest.raises(DataFormatError, match="needs voxels beside the frames"):
        beside_frames(frames, None, channels=4, unit=8)
