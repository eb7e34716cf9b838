"""Tiled and clipped restoration gives what whole restoration gives, for what a model can see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrtspike.config.model import GuessSettings, ModelSettings, SpikeBranchSettings
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError
from vrtspike.model import build_model
from vrtspike.restoration.tiled import restore, restore_stream, unit_of


class LocalModel(nn.Module):
    """A stand-in that reaches `reach` pixels and mixes in its voxels."""

    def __init__(self, reach: int, factor: int = 1) -> None:
        super().__init__()
        side = 2 * reach + 1
        generator = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(torch.rand(1, 1, 1, side, side, generator=generator))
        self.factor, self.sizes = factor, []

    def forward(self, blurred: Tensor, voxels: Tensor | None = None) -> Tensor:
        self.sizes.append(tuple(blurred.shape[-2:]))
        x = blurred
        if voxels is not None:
            enlarged = voxels.mean(2, keepdim=True).repeat_interleave(self.factor, -1)
            x = x + enlarged.repeat_interleave(self.factor, -2)
        flat = x.flatten(0, 2)[:, None]
        out = F.conv2d(flat, self.kernel[0], padding=self.kernel.shape[-1] // 2)
        return out.view(x.shape)


def video(frames: int, height: int, width: int) -> Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(40, 56), (37, 61), (70, 33)])
@pytest.mark.parametrize("factor", [1, 2])
def test_tiled_equals_whole_for_a_local_model(size: tuple[int, int], factor: int) -> None:
    height, width = (side // factor * factor for side in size)
    blurred = video(5, height, width)
    voxels = video(5, height // factor, width // factor)
    model = LocalModel(reach=2, factor=factor)
    whole = restore(model, blurred, voxels)
    model.sizes.clear()
    tiled = restore(model, blurred, voxels, tile=32, overlap=8, tile_frames=3, overlap_frames=1)
    assert max(max(size) for size in model.sizes) <= 32
    assert torch.allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 100])
def test_any_number_of_frames_comes_back_once_and_in_order(frames: int) -> None:
    blurred = video(frames, 8, 8)
    restored = restore(LocalModel(0), blurred, tile_frames=4, overlap_frames=2)
    assert torch.allclose(restored, blurred * LocalModel(0).kernel.item(), atol=1e-6)


def test_a_stream_reads_and_holds_a_few_frames_at_a_time() -> None:
    longest = [0]

    def read(start: int, stop: int) -> tuple[Tensor, None]:
        longest[0] = max(longest[0], stop - start)
        return video(stop - start, 8, 8), None

    chunks = list(restore_stream(LocalModel(0), read, 50, tile_frames=6, overlap_frames=2))
    assert sum(len(chunk) for chunk in chunks) == 50
    assert max(len(chunk) for chunk in chunks) <= 6
    assert longest[0] <= 6


def test_the_model_is_evaluated_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(0.9))
    model.forward = lambda blurred, voxels=None: model[0](blurred)  # type: ignore[method-assign]
    model.train()
    blurred = video(2, 8, 8)
    assert torch.equal(restore(model, blurred), blurred)
    assert model.training


def test_bad_input_and_bad_output_are_refused() -> None:
    with pytest.raises(DataFormatError, match="4 frames, voxels of 3"):
        restore(LocalModel(0), video(4, 8, 8), video(3, 8, 8))
    with pytest.raises(DataFormatError, match="0 frames"):
        restore(LocalModel(0), video(4, 8, 8)[:0])
    with pytest.raises(ConfigError, match="integer ratio"):
        restore(LocalModel(0), video(2, 40, 40), video(2, 16, 16), tile=24, overlap=8)
    broken = LocalModel(0)
    with torch.no_grad():
        broken.kernel.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="finite"):
        restore(broken, video(2, 8, 8))


@pytest.fixture(scope="module")
def small_model() -> nn.Module:
    torch.manual_seed(0)
    spike = SpikeBranchSettings(bins=4, heads=2, blocks=1)
    settings = ModelSettings(
        channels=8,
        refine_channels=8,
        blocks=1,
        refine_blocks=1,
        refine_groups=(1, 1),
        heads=2,
        window=(2, 4, 4),
        deformable_groups=2,
        flow_channels=(4, 8, 4, 2),
        spike=spike,
    )
    return build_model(settings).eval()


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (3, 41, 52), (5, 64, 40)])
def test_the_real_model_takes_any_length_and_size(
    small_model: nn.Module, frames: int, height: int, width: int
) -> None:
    blurred, voxels = video(frames, height, width), torch.rand(frames, 4, height, width)
    whole = restore(small_model, blurred, voxels)
    tiled = restore(small_model, blurred, voxels, tile=32, overlap=16)
    clipped = restore(small_model, blurred, voxels, tile_frames=2, overlap_frames=1)
    assert whole.shape == tiled.shape == clipped.shape == blurred.shape
    change = (whole - blurred).abs().mean()
    assert change > 0.01
    # Random weights look far; parts put in the wrong place would differ by more than the change.
    assert (whole - tiled).abs().mean() < 0.4 * change
    assert (whole - clipped).abs().mean() < 0.4 * change


@pytest.fixture(scope="module", params=[2, 4])
def patched(request: pytest.FixtureRequest, tiny: ModelSettings) -> nn.Module:
    """Return a model that works on patches, behind a guess, all of whose parts do something."""
    torch.manual_seed(0)
    guess = GuessSettings(channels=8, blocks=1)
    model = build_model(tiny.model_copy(update={"patch": request.param, "guess": guess})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv_last" in name:
                parameter.copy_(0.05 * torch.randn_like(parameter))
    return model


def test_patches_are_restored_tile_by_tile(patched: nn.Module) -> None:
    unit = patched.unit
    coarse = torch.rand(2, 7, 12, 14, generator=torch.Generator().manual_seed(1))
    fine = nn.functional.interpolate(coarse, (5 * unit - 6, 3 * unit), mode="bicubic").clamp(0, 1)
    blurred, voxels, sizes = fine[:, :3], fine[:, 3:], set()
    whole = restore(patched, blurred, voxels)
    hook = patched.register_forward_pre_hook(lambda _, given: sizes.add(given[0].shape[-2:]))
    tiled = restore(patched, blurred, voxels, tile=3 * unit, overlap=unit)
    hook.remove()
    assert {height for height, _ in sizes} <= {3 * unit, 3 * unit - 6}, "tiles"
    change = (whole - blurred).abs().mean()
    assert change > 0.01
    assert (whole - tiled).abs().mean() < 0.05 * change


def test_tiles_of_a_model_begin_and_end_at_its_unit() -> None:
    blurred, model = video(2, 224, 250), LocalModel(0)
    whole = restore(model, blurred)
    model.unit = 32
    model.sizes.clear()
    tiled = restore(model, blurred, tile=96, overlap=32)
    torch.testing.assert_close(tiled, whole)
    # Only the last of a row may end at the border of the frame instead.
    assert {height % 32 for height, _ in model.sizes} == {0}
    assert {width % 32 for _, width in model.sizes} <= {0, 250 % 32}
    assert unit_of(model) == 32 and unit_of(nn.Identity()) == 8


def test_half_precision_changes_little(small_model: nn.Module) -> None:
    blurred, voxels = video(3, 32, 32), torch.rand(3, 4, 32, 32)
    exact = restore(small_model, blurred, voxels)
    half = restore(small_model, blurred, voxels, precision="bfloat16")
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.1 * (exact - blurred).abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_restores_what_the_cpu_does(tiny: ModelSettings) -> None:
    torch.manual_seed(0)
    model = build_model(tiny).eval()
    blurred, voxels = video(7, 72, 88), torch.rand(7, tiny.spike.bins, 36, 44)
    tiling = {"tile": 48, "overlap": 16, "tile_frames": 4, "overlap_frames": 1}
    on_cpu = restore(model, blurred, voxels, **tiling)
    on_gpu = restore(model.cuda(), blurred, voxels, **tiling)
    assert (on_gpu - on_cpu).abs().max() < 1e-3
