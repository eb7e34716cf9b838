"""The spike encoder."""

from __future__ import annotations

import torch

from vrtspike.model.spike_encoder import SpikeEncoder3D


def test_encoder_halves_space_and_keeps_time() -> None:
    features = SpikeEncoder3D(4, 8)(torch.rand(1, 3, 16, 24, 4))
    assert [tuple(f.shape) for f in features] == [(1, 3, 16 // s, 24 // s, 8) for s in (1, 2, 4, 8)]


def test_encoder_keeps_one_feature_a_convolution() -> None:
    """The inputs of convolutions are kept, not copies shifted along t or sums before a ReLU."""
    encoder, kept = SpikeEncoder3D(8, 8), {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
    ):
        features = encoder(torch.rand(1, 4, 16, 16, 8))
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    numbers = sum(x.untyped_storage().nbytes() // 4 for at, x in kept.items() if at not in weights)
    assert numbers <= 8 * sum(f.numel() for f in features)
