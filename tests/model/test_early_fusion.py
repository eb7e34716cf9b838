"""Spikes as a fourth channel of VRT's input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vrtspike.config.model import ModelSettings
from vrtspike.model import build_model


def test_fourth_channel_starts_as_the_mean_over_the_bins(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(tiny.model_copy(update={"fusion": "early"}))
    seen: list[Tensor] = []
    monkeypatch.setattr(model.vrt, "restore", lambda x, **_: seen.append(x) or x[:, :, :3])
    blurred, voxels = clip
    assert torch.equal(model(blurred, voxels), blurred)
    torch.testing.assert_close(seen[0][:, :, 3], voxels.mean(2))
    model(blurred, voxels[:, :, :, ::2, ::2].repeat_interleave(2, dim=1))
    assert seen[1].shape == (2, 3, 4, 32, 40)


def test_flow_does_not_see_spikes(tiny: ModelSettings, clip: tuple[Tensor, Tensor]) -> None:
    model = build_model(tiny.model_copy(update={"fusion": "early"})).eval()
    seen: list[Tensor] = []
    model.vrt.spynet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(*clip)
    model(clip[0], clip[1].flip(-1))
    assert seen[0].shape[1] == 3
    assert torch.equal(seen[0], seen[1])
