"""Models with spikes: every fusion."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vrtspike.config.model import ModelSettings
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.model import build_model
from vrtspike.model.grid import to_patches

ATTENTION = ("temporal", "window")
FUSIONS = (*ATTENTION, "concat", "early")


def variant(settings: ModelSettings, fusion: str, **spike: object) -> ModelSettings:
    """Return the settings with another fusion and other settings of the spike branch."""
    branch = settings.spike.model_copy(update={"window": 4, **spike})
    return settings.model_copy(update={"fusion": fusion, "spike": branch})


def same_weights(model: nn.Module, settings: ModelSettings) -> nn.Module:
    """Return a model of other settings with the same weights."""
    other = build_model(settings)
    other.load_state_dict(model.state_dict())
    return other


def results(model: nn.Module, blurred: Tensor, voxels: Tensor) -> Iterator[Tensor]:
    """Yield output and gradients of a training step."""
    out = model(blurred, voxels)
    yield out
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        yield parameter.grad


def assert_same_step(model: nn.Module, other: nn.Module, clip: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(results(model, *clip), results(other, *clip), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.fixture
def small_clip() -> tuple[Tensor, Tensor]:
    """Blurred frames (2, 2, 3, 16, 20) and voxels (2, 2, 4, 16, 20)."""
    generator = torch.Generator().manual_seed(1)
    blurred = torch.rand(2, 2, 3, 16, 20, generator=generator)
    return blurred, torch.rand(2, 2, 4, 16, 20, generator=generator)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_zero_initialised_fusion_equals_plain_vrt(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    fused = build_model(variant(tiny, fusion, zero_init_fusion=True))
    plain = build_model(tiny.model_copy(update={"fusion": "none"}))
    state = fused.vrt.state_dict()
    if fusion == "early":
        weight = state["conv_first.weight"].unflatten(1, (9, 4))
        state["conv_first.weight"] = weight[:, :, :3].flatten(1, 2)
    plain.load_state_dict(state)
    torch.testing.assert_close(fused(*small_clip), plain(small_clip[0]))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_zero_initialised_fusion_learns_from_spikes(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    model = build_model(variant(tiny, fusion, zero_init_fusion=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in results(model, *small_clip):
        pass
    optimizer.step()
    assert not torch.equal(model(*small_clip), model(small_clip[0], small_clip[1].flip(-1)))


def test_what_is_called_inside_a_stage_is_no_block_of_its_own(tiny: ModelSettings) -> None:
    inside, between = (build_model(variant(tiny, fusion)) for fusion in ("concat", "temporal"))
    assert set(between.fusion) < set(between.blocks())
    assert set(inside.fusion).isdisjoint(inside.blocks())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_spikes_change_the_output(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(variant(tiny, fusion)).eval()
    blurred, voxels = small_clip
    assert not torch.allclose(model(blurred, voxels), model(blurred, voxels.flip(-1)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_dark_sensor_gives_finite_output(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(variant(tiny, fusion))
    blurred, voxels = small_clip
    assert all(x.isfinite().all() for x in results(model, blurred, torch.zeros_like(voxels)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_batched_equals_single(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(variant(tiny, fusion)).eval()
    blurred, voxels = small_clip
    single = [model(x[None], v[None]) for x, v in zip(blurred, voxels, strict=True)]
    torch.testing.assert_close(model(blurred, voxels), torch.cat(single), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_recomputing_changes_neither_values_nor_gradients(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    settings = variant(tiny, fusion)
    model = build_model(settings)
    recompute = {"checkpoint_attention": True, "checkpoint_mlp": True}
    other = same_weights(model, settings.model_copy(update=recompute))
    assert_same_step(model, other, small_clip)


@pytest.mark.parametrize("fusion", ATTENTION)
@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param({"chunk_size": 3}, marks=pytest.mark.slow),
        pytest.param({"chunk_size": 5, "chunk_shape": "rows"}, marks=pytest.mark.slow),
        {"max_batch_tokens": 300},
        {"chunk_size": 8, "chunk_shape": "rows", "max_batch_tokens": 50},
    ],
)
def test_chunked_equals_whole(
    chunks: dict[str, object], fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(variant(tiny, fusion))
    chunked = same_weights(model, variant(tiny, fusion, **chunks))
    assert_same_step(model, chunked, small_clip)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bfloat16_is_close_to_float32(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(variant(tiny, fusion))
    whole = model(*small_clip)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*small_clip)
    half.square().mean().backward()
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute:UserWarning",  # torch.compile's own
    "ignore:Dynamo does not know how to trace:UserWarning",  # the check of annotations in tests
)
@pytest.mark.parametrize("fusion", ATTENTION)
def test_compiled_equals_eager(
    fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    """Compile the parts of the spike branch; VRT's own have their own test."""
    settings = variant(tiny, fusion, max_batch_tokens=300)
    model = build_model(settings)
    compiled = same_weights(model, settings)
    for part in (compiled.encoder, compiled.temporal[0], compiled.fusion[0]):
        part.compile(backend="aot_eager")  # needs no C++ compiler
    assert_same_step(model, compiled, small_clip)


def test_missing_or_wrong_voxels_are_refused(
    tiny: ModelSettings, clip: tuple[Tensor, Tensor]
) -> None:
    for fusion in FUSIONS:
        model = build_model(variant(tiny, fusion))
        with pytest.raises(DataFormatError, match="got none"):
            model(clip[0])
        with pytest.raises(DataFormatError, match="k=4"):
            model(clip[0], clip[1][:, :, :3])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarser_sensor_sees_the_same_field(
    factor: int, fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    """Where the picture is flat, a coarser grid says the same as a finer one."""
    model = build_model(variant(tiny, fusion)).eval()
    blurred = small_clip[0]
    levels = torch.rand(2, 2, 4, 1, 1)
    fine = model(blurred, levels.expand(-1, -1, -1, 16, 20))
    coarse = model(blurred, levels.expand(-1, -1, -1, 16 // factor, 20 // factor))
    torch.testing.assert_close(fine, coarse)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("instants", [1, 3])
def test_spikes_of_another_length_in_time(
    instants: int, fusion: str, tiny: ModelSettings, small_clip: tuple[Tensor, Tensor]
) -> None:
    model = build_model(variant(tiny, fusion))
    outputs = list(results(model, small_clip[0], torch.rand(2, instants, 4, 16, 20)))
    assert outputs[0].shape == small_clip[0].shape
    assert all(x.isfinite().all() for x in outputs)


@pytest.mark.parametrize("fusion", ("temporal", "window", "concat"))
def test_temporal_strides_shorten_the_coarser_scales(fusion: str, tiny: ModelSettings) -> None:
    model = build_model(variant(tiny, fusion, temporal_strides=(2, 1, 3), kernel=(3, 3, 3)))
    voxels = torch.rand(1, 5, 4, 16, 16)
    assert [len(x[0]) for x in model.encoder(to_patches(voxels, 1))] == [5, 3, 3, 1]
    assert model(torch.rand(1, 3, 3, 16, 16), voxels).shape == (1, 3, 3, 16, 16)


def test_spike_heads_that_do_not_divide_are_refused(tiny: ModelSettings) -> None:
    with pytest.raises(ConfigError, match=r"model\.spike\.heads .* width 8, spike\.heads 3"):
        build_model(variant(tiny, "window", heads=3))
    build_model(variant(tiny, "concat", heads=3))


def test_an_even_kernel_is_refused(tiny: ModelSettings) -> None:
    with pytest.raises(ConfigError, match="odd"):
        build_model(variant(tiny, "temporal", kernel=(2, 3, 3)))
