"""Reading weights: what is taken, what is adapted, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vrtspike.config.loader import load_config
from vrtspike.config.model import GuessSettings, ModelSettings
from vrtspike.errors import CheckpointError
from vrtspike.model import build_model, load_weights
from vrtspike.model.vrt import VRT
from vrtspike.model.weights import check_weights
from vrtspike.runtime.ray_session import resolve_paths

TABLE = "residual_group{}.blocks.0.attn.relative_position_bias_table"


@pytest.fixture
def plain(tiny: ModelSettings) -> VRT:
    torch.manual_seed(1)
    return build(tiny, fusion="none")


def build(settings: ModelSettings, **changes: object) -> torch.nn.Module:
    return build_model(settings.model_copy(update=changes))


def four_channels(settings: ModelSettings) -> VRT:
    """Return a VRT whose input has a channel behind RGB."""
    vrt = build(settings, fusion="early").vrt
    assert isinstance(vrt, VRT) and vrt.in_chans == 4
    return vrt


def published(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a state dict as published: with index and position buffers that nobody reads."""
    attention = "stage1.residual_group1.blocks.0.attn"
    return model.state_dict() | {
        f"{attention}.relative_position_index": torch.zeros(2, 2, dtype=torch.int64),
        f"{attention}.position_bias": torch.zeros(1, 16, 8),
    }


def refusal(model: torch.nn.Module, path: Path) -> str:
    """Return the message with which a file is refused; the model must not change."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return str(caught.value)


def test_an_export_is_taken_whole(tiny: ModelSettings, tmp_path: Path) -> None:
    source, target = build(tiny), build(tiny)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    report = load_weights(target, tmp_path / "model.safetensors")
    assert not report.missing and not report.adapted and not report.unexpected
    assert len(report.taken) == len(source.state_dict())
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("fusion", ["temporal", "window", "concat"])
def test_a_published_vrt_fills_a_fused_model(
    fusion: str, wrapped: bool, tiny: ModelSettings, plain: VRT, tmp_path: Path
) -> None:
    state = published(plain)
    torch.save({"params": state} if wrapped else state, tmp_path / "vrt.pth")
    fused = build(tiny, fusion=fusion)
    before = {k: v.clone() for k, v in fused.state_dict().items()}
    report = load_weights(fused, tmp_path / "vrt.pth")
    for name, value in fused.state_dict().items():
        kept = not name.startswith("vrt.")
        assert (name in report.missing) == kept and (name in report.taken) != kept
        assert torch.equal(value, before[name] if kept else state[name.removeprefix("vrt.")])
    assert len(report.unexpected) == 2
    said = str(report)
    assert f"{len(plain.state_dict())} tensors taken" in said
    assert f"{len(report.missing)} missing" in said and report.missing[0] in said
    assert "2 unexpected" in said and "blocks.0.attn.relative_position_index" in said


def test_a_file_with_the_published_names_fits(
    shared: Path, make_golden_vrt: Callable[[], VRT]
) -> None:
    report = load_weights(make_golden_vrt(), shared / "golden/vrt_tiny_params.pt")
    assert not report.missing and not report.adapted
    assert all(k.endswith(("_index", "position_bias")) for k in report.unexpected)


@pytest.mark.parametrize("fused", [True, False])
def test_a_flow_network_alone(fused: bool, tiny: ModelSettings, plain: VRT, tmp_path: Path) -> None:
    flow = {k: v for k, v in plain.spynet.state_dict().items() if "basic_module" in k}
    torch.save({"params": flow}, tmp_path / "spynet.pth")
    model = build(tiny, fusion="temporal" if fused else "none")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_weights(model, tmp_path / "spynet.pth")
    prefix = "vrt.spynet." if fused else "spynet."
    assert set(report.taken) == {f"{prefix}{k}" for k in flow}
    for name, value in model.state_dict().items():
        assert torch.equal(value, flow.get(name.removeprefix(prefix), before[name]))


GUIDED = {"guess": GuessSettings(channels=8, blocks=1)}


@pytest.mark.parametrize("fusion", ["temporal", "early", "none"])
def test_parts_of_a_guided_model_go_where_it_has_them(
    fusion: str, tiny: ModelSettings, plain: VRT, tmp_path: Path
) -> None:
    """A guess that was trained alone, the transformer behind it, a plain VRT, its flow network."""
    guided = {"fusion": fusion, **GUIDED}
    torch.manual_seed(5)
    guess, trunk = build(tiny, **guided, trunk=False), build(tiny, fusion=fusion)
    vrt = "trunk." if fusion == "none" else "trunk.vrt."
    flow = {k: v for k, v in plain.state_dict().items() if k.startswith("spynet.")}
    bare = {k.removeprefix("spynet."): v for k, v in flow.items()}
    for content, place in (
        (guess.state_dict(), ""),
        (trunk.state_dict(), "trunk."),
        (plain.state_dict(), vrt),
        (flow, vrt),
        (bare, f"{vrt}spynet."),
    ):
        torch.manual_seed(6)
        model = build(tiny, **guided)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        save_file(content, tmp_path / "part.safetensors")
        report = load_weights(model, tmp_path / "part.safetensors")
        assert {*report.taken, *report.adapted} == {f"{place}{k}" for k in content}
        assert set(report.adapted) <= {f"{vrt}conv_first.weight"}, "a fourth input channel"
        for name, value in model.state_dict().items():
            if name not in report.adapted:
                given = content.get(name.removeprefix(place)) if name.startswith(place) else None
                assert torch.equal(value, before[name] if given is None else given), name
        assert set(report.missing) == before.keys() - {*report.taken, *report.adapted}


def test_a_guided_model_is_taken_whole_and_no_half_of_it(
    tiny: ModelSettings, tmp_path: Path
) -> None:
    source, target = build(tiny, **GUIDED, patch=2), build(tiny, **GUIDED, patch=2)
    state, path = source.state_dict(), tmp_path / "model.safetensors"
    save_file(state, path)
    report = load_weights(target, path)
    assert set(report.taken) == state.keys() and not report.missing
    other = build(tiny, **GUIDED | {"guess": GuessSettings(channels=4, blocks=1)}, patch=2)
    assert "conv1.weight (8, 8, 3, 3) for (4, 4, 3, 3)" in refusal(other, path)
    assert "trunk." in refusal(build(tiny, **GUIDED, trunk=False), path)
    assert "the model does not have" in refusal(build(tiny), path)
    for half in (
        {k: v for k, v in state.items() if not k.startswith("entry.")},
        {k: v for k, v in state.items() if k.startswith("entry.")},
        {k: v for k, v in state.items() if k.startswith("guess.conv")},
    ):
        save_file(half, path)
        assert "only a part" in refusal(target, path)


def test_a_fourth_input_channel_changes_nothing_at_first(
    tiny: ModelSettings, plain: VRT, clip: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(published(plain), tmp_path / "rgb.pth")
    torch.manual_seed(2)
    wider = four_channels(tiny).eval()
    report = load_weights(wider, tmp_path / "rgb.pth")
    assert report.adapted == {
        "conv_first.weight": "input channels 3 -> 4, the new ones zero",
    }
    assert "1 adapted, input channels 3 -> 4" in str(report) and not report.missing
    four = torch.cat((clip[0], clip[1][:, :, :1]), dim=2)
    torch.testing.assert_close(wider(four), plain.eval()(clip[0]))
    group = plain.conv_first.weight.unflatten(1, (9, 3))
    assert torch.equal(wider.conv_first.weight.unflatten(1, (9, 4))[:, :, :3], group)


def test_a_published_vrt_fills_early_fusion(
    tiny: ModelSettings, plain: VRT, tmp_path: Path
) -> None:
    torch.save(published(plain), tmp_path / "rgb.pth")
    fused = build(tiny, fusion="early")
    report = load_weights(fused, tmp_path / "rgb.pth")
    assert list(report.adapted) == ["vrt.conv_first.weight"]
    assert report.missing and not any(k.startswith("vrt.") for k in report.missing)
    assert torch.equal(fused.vrt.conv_last.weight, plain.conv_last.weight)


def test_another_window_keeps_what_the_bias_says_of_near_and_far(
    tiny: ModelSettings, tmp_path: Path
) -> None:
    """Resizing keeps constants, symmetry, the middle (a token and itself) and each head apart."""
    source = build(tiny, fusion="none", window=(4, 4, 4))
    with torch.no_grad():
        for name, table in source.named_parameters():
            if name.endswith("bias_table"):
                t = (len(table) // 49 + 1) // 2
                axes = (torch.arange(1.0 - n, n) for n in (t, 4, 4))
                offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
                table[:, 0] = -offsets.square().sum(-1).flatten()
                table[:, 1] = 3.0
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    for window in ((4, 8, 8), (4, 3, 5), (2, 4, 4), (7, 6, 6)):
        target = build(tiny, fusion="none", window=window)
        report = load_weights(target, tmp_path / "model.safetensors")
        assert report.adapted and all(k.endswith("bias_table") for k in report.adapted)
        assert not report.missing
        for name, table in target.named_parameters():
            if not name.endswith("bias_table"):
                continue
            own = target.get_submodule(name.rpartition(".")[0]).window
            assert own[1:] == window[1:]
            far = table[:, 0].unflatten(0, tuple(2 * n - 1 for n in own))
            torch.testing.assert_close(table[:, 1], torch.full_like(table[:, 1], 3.0))
            torch.testing.assert_close(far, far.flip(0, 1, 2))
            assert far.argmax() == far.numel() // 2
    assert "bias tables resized from window (4, 4, 4) to (7, 6, 6)" in str(report)


def test_only_the_tables_over_time_are_adapted_to_another_length_in_time(
    tiny: ModelSettings, tmp_path: Path
) -> None:
    source = build(tiny, fusion="none", window=(6, 4, 4))
    torch.save({"params": published(source)}, tmp_path / "model.pth")
    target = build(tiny, window=(5, 4, 4))
    report = load_weights(target, tmp_path / "model.pth")
    assert "vrt.stage1." + TABLE.format(2) in report.adapted
    assert "vrt.stage1." + TABLE.format(1) in report.taken
    assert "vrt.stage8.2.residual_group.blocks.0.attn.relative_position_bias_table" in report.taken
    ramp = torch.arange(-5.0, 6.0)
    state = source.state_dict()
    state["stage1." + TABLE.format(2)] = ramp.repeat_interleave(49)[:, None].expand(-1, 2).clone()
    torch.save(state, tmp_path / "ramp.pth")
    load_weights(target, tmp_path / "ramp.pth")
    table = target.vrt.stage1.residual_group2.blocks[0].attn.relative_position_bias_table
    inner = table.unflatten(0, (9, 49))[1:-1, 0, 0]
    torch.testing.assert_close(inner, torch.arange(-3.0, 4.0) * 11 / 9)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({"heads": 4}, {}),
        ({"heads": 4, "window": (2, 6, 6)}, {}),
        ({"window": (1, 4, 4)}, {}),
        ({}, {"window": (2, 1, 1)}),
        ({"window": (2, 4, 6)}, {}),
        ({"mutual_ratio": 0.0}, {"mutual_ratio": 0.0, "window": (2, 6, 6)}),
        ({"refine_groups": (0, 2)}, {"refine_groups": (2, 0)}),
    ],
    ids=[
        "heads",
        "heads and window",
        "over frames",
        "in space",
        "not square",
        "no pairs",
        "other groups",
    ],
)
def test_a_window_that_is_not_well_defined_is_refused(
    made: dict[str, object], asked: dict[str, object], tiny: ModelSettings, tmp_path: Path
) -> None:
    source = build(tiny, fusion="none", **made)
    torch.save(source.state_dict(), tmp_path / "model.pth")
    target = build(tiny, fusion="none", **asked)
    table = next(
        f"{k} {tuple(v.shape)} for {tuple(target.state_dict()[k].shape)}"
        for k, v in source.state_dict().items()
        if v.shape != target.state_dict()[k].shape and k.endswith("bias_table")
    )
    assert table in refusal(target, tmp_path / "model.pth")


def test_what_does_not_fit_is_refused_with_names_and_shapes_and_changes_nothing(
    tiny: ModelSettings, plain: VRT, tmp_path: Path
) -> None:
    state, fused, path = plain.state_dict(), build(tiny), tmp_path / "weights.pth"
    spike = next(k for k in fused.state_dict() if not k.startswith("vrt."))
    wider = build(tiny, fusion="none", channels=16).state_dict()
    four = four_channels(tiny).state_dict()
    flow = {k: v for k, v in state.items() if k.startswith("spynet.basic_module")}
    half = {k: v for k, v in fused.state_dict().items() if k.startswith("vrt.") or k == spike}
    for model, content, message in (
        (plain, wider, "conv_first.weight (16, 27, 1, 3, 3) for (8, 27, 1, 3, 3)"),
        (plain, four, "conv_first.weight (8, 36, 1, 3, 3) for (8, 27, 1, 3, 3)"),
        (plain, state | {"somewhere.else": torch.zeros(2, 3)}, "somewhere.else (2, 3)"),
        (plain, fused.state_dict(), "the model does not have"),
        (plain, {"conv_first.weight": state["conv_first.weight"]}, "only a part"),
        (plain, dict(list(flow.items())[1:]), "only a part"),
        (plain, dict(list(state.items())[1:]), "conv_first.weight (8, 27, 1, 3, 3) missing"),
        (fused, half, "only a part"),
        (plain, {}, "only a part"),
        (plain, state | {"stage1." + TABLE.format(2): torch.zeros(3)}, "(3,) for"),
    ):
        torch.save(content, path)
        assert message in refusal(model, path)


def test_files_that_are_no_weights(plain: VRT, tmp_path: Path) -> None:
    for name in ("bad.safetensors", "bad.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
        assert name in refusal(plain, tmp_path / name)
    torch.save(plain.state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        assert "cannot be read" in refusal(plain, tmp_path / "cut.pth")
    for content in ([1, 2], {"params": 3}, {"conv_first.weight": "x"}, {7: torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pth")
        assert "no state dict" in refusal(plain, tmp_path / "other.pth")
    assert "no such" in refusal(plain, tmp_path / "absent")


class Trap:
    """Write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_code_is_never_unpickled(plain: VRT, tmp_path: Path) -> None:
    torch.save({"params": Trap(tmp_path / "sprung")}, tmp_path / "code.pth")
    assert "cannot be read" in refusal(plain, tmp_path / "code.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_name_gives_every_tensor_of_a_model_of_that_size(
    packaged_weights: Path, repository: Path
) -> None:
    path, start = repository / "configs/model/small.yaml", ["train.init_weights=small"]
    config = resolve_paths(load_config(path, start))
    model, weights = build_model(config.model), config.train.init_weights
    assert weights == ("small",)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, *weights)
    assert not (report.missing or report.adapted or report.unexpected)
    assert set(report.taken) == before.keys()
    given, taken = load_file(packaged_weights / "small.safetensors"), model.state_dict()
    for name in before:
        torch.testing.assert_close(taken[name], given[name], rtol=0, atol=0)
        assert not torch.equal(taken[name], before[name]), name


@pytest.mark.usefixtures("packaged_weights")
def test_weights_are_tried_on_a_model_without_memory(repository: Path) -> None:
    small = load_config(repository / "configs/model/small.yaml").model
    with torch.device("meta"):
        fits, other = build(small), build(small, channels=24)
        plain = build(small, fusion="none")
    assert len(check_weights(fits, "small").taken) == len(fits.state_dict())
    assert check_weights(fits, "small-no-spike").missing  # the spike branch keeps its values
    assert check_weights(fits, "flow").missing
    with pytest.raises(CheckpointError, match="do not have the model's shapes"):
        check_weights(other, "small")
    with pytest.raises(CheckpointError, match="tensors that the model does not have"):
        check_weights(plain, "small")
