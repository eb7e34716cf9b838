"""The spike encoder."""

from __future__ import annotations

import pytest
import torch

from vrtspike.errors import DataFormatError
from vrtspike.model.spike_encoder import SpikeEncoder3D, check_voxels, on_grid


def test_encoder_halves_space_and_keeps_time() -> None:
    features = SpikeEncoder3D(4, 8)(torch.rand(1, 3, 4, 16, 24))
    assert [tuple(f.shape) for f in features] == [(1, 3, 16 // s, 24 // s, 8) for s in (1, 2, 4, 8)]


def test_encoder_keeps_one_feature_a_convolution() -> None:
    """The inputs of convolutions are kept, not copies shifted along t or sums before a ReLU."""
    encoder, kept = SpikeEncoder3D(8, 8), {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
    ):
        features = encoder(torch.rand(1, 4, 8, 16, 16))
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    numbers = sum(x.untyped_storage().nbytes() // 4 for at, x in kept.items() if at not in weights)
    assert numbers <= 8 * sum(f.numel() for f in features)


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
