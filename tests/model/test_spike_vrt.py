"""The spike branch and its fusion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vrtspike.errors import DataFormatError
from vrtspike.model import build_model
from vrtspike.model.spike_encoder import SpikeEncoder3D
from vrtspike.model.temporal import TemporalAttention
from vrtspike.settings import ModelSettings


def test_zero_initialised_fusion_equals_plain_vrt(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    spike = tiny.spike.model_copy(update={"zero_init_fusion": True})
    fused = build_model(tiny.model_copy(update={"spike": spike}))
    plain = build_model(tiny.model_copy(update={"fusion": "none"}))
    plain.load_state_dict(fused.vrt.state_dict())
    torch.testing.assert_close(fused(*clip), plain(clip[0]))


def test_spikes_change_the_output(tiny: ModelSettings, clip: tuple[Tensor, Tensor]) -> None:
    model = build_model(tiny).eval()
    assert not torch.allclose(model(*clip), model(clip[0], clip[1].flip(-1)))


def test_a_dark_sensor_gives_finite_output(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(tiny)
    out = model(clip[0], torch.zeros_like(clip[1]))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_missing_or_wrong_voxels_are_refused(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(tiny)
    with pytest.raises(DataFormatError, match="got none"):
        model(clip[0])
    with pytest.raises(DataFormatError, match="k=4"):
        model(clip[0], clip[1][:, :, :3])


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarser_sensor_is_resized(
    factor: int, tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(tiny).eval()
    voxels = torch.rand(2, 3, 4, 32 // factor, 40 // factor)
    assert model(clip[0], voxels).shape == clip[0].shape


def test_encoder_halves_space_and_keeps_time() -> None:
    features = SpikeEncoder3D(4, 8)(torch.rand(1, 3, 4, 16, 24), (16, 24))
    assert [tuple(f.shape) for f in features] == [(1, 3, 16 // s, 24 // s, 8) for s in (1, 2, 4, 8)]


def test_attention_equals_torch_without_slopes() -> None:
    ours = TemporalAttention(8, 2, temporal_bias=False)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat((ours.q.weight, ours.kv.weight)))
        reference.in_proj_bias.copy_(torch.cat((ours.q.bias, ours.kv.bias)))
    reference.out_proj.load_state_dict(ours.proj.state_dict())
    query, source = torch.rand(2, 3, 4, 5, 8), torch.rand(2, 6, 4, 5, 8)
    flat = [x.permute(0, 2, 3, 1, 4).flatten(0, 2) for x in (query, source)]
    expected = reference(flat[0], flat[1], flat[1])[0].view(2, 4, 5, 3, 8).permute(0, 3, 1, 2, 4)
    torch.testing.assert_close(ours(query, source), expected)


def test_slopes_favour_the_own_instant() -> None:
    """With equal scores, a steep slope makes the output the source of the same instant."""
    attention = TemporalAttention(4, 1)
    for layer in (attention.q, attention.kv, attention.proj):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        attention.slopes.fill_(50.0)
        attention.kv.weight[4:] = torch.eye(4)
        attention.proj.weight.copy_(torch.eye(4))
    source = torch.rand(1, 3, 2, 2, 4)
    torch.testing.assert_close(attention(torch.rand(1, 3, 2, 2, 4), source), source)
    twice = source.repeat_interleave(2, dim=1)
    torch.testing.assert_close(attention(torch.rand(1, 3, 2, 2, 4), twice), source)


@pytest.mark.parametrize("max_tokens", [1, 40, 100, 10_000])
def test_chunked_equals_whole(max_tokens: int) -> None:
    whole, chunked = TemporalAttention(8, 2), TemporalAttention(8, 2, max_tokens=max_tokens)
    chunked.load_state_dict(whole.state_dict())
    query, source = torch.rand(2, 3, 7, 5, 8), torch.rand(2, 4, 7, 5, 8)
    torch.testing.assert_close(whole(query, source), chunked(query, source))
