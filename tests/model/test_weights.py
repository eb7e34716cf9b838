"""Reading weights: what is taken, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vrtspike.errors import CheckpointError
from vrtspike.model import build_model, load_weights
from vrtspike.settings import ModelSettings


@pytest.fixture
def plain(tiny: ModelSettings) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_model(tiny.model_copy(update={"fusion": "none"}))


def test_an_export_is_taken_whole(tiny: ModelSettings, tmp_path: Path) -> None:
    source, target = build_model(tiny), build_model(tiny)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    report = load_weights(target, tmp_path / "model.safetensors")
    assert not report.missing and len(report.taken) == len(source.state_dict())
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_published_vrt_fills_a_fused_model(
    wrapped: bool, tiny: ModelSettings, plain: torch.nn.Module, tmp_path: Path
) -> None:
    state = plain.state_dict()
    state["stage1.residual_group1.blocks.0.attn.relative_position_index"] = torch.zeros(2, 2).long()
    torch.save({"params": state} if wrapped else state, tmp_path / "vrt.pth")
    fused = build_model(tiny)
    report = load_weights(fused, tmp_path / "vrt.pth")
    assert len(report.dropped) == 1 and all("vrt." not in k for k in report.missing)
    assert torch.equal(fused.vrt.conv_first.weight, plain.conv_first.weight)


def test_a_flow_network_alone(plain: torch.nn.Module, tiny: ModelSettings, tmp_path: Path) -> None:
    state = {k: v for k, v in plain.spynet.state_dict().items() if "basic_module" in k}
    torch.save({"params": state}, tmp_path / "spynet.pth")
    model = build_model(tiny)
    before = model.vrt.conv_first.weight.clone()
    load_weights(model, tmp_path / "spynet.pth")
    first = model.vrt.spynet.basic_module[0].basic_module[0].weight
    assert torch.equal(first, plain.spynet.basic_module[0].basic_module[0].weight)
    assert torch.equal(model.vrt.conv_first.weight, before)


def test_what_does_not_fit_is_refused_and_changes_nothing(
    tiny: ModelSettings, plain: torch.nn.Module, tmp_path: Path
) -> None:
    wider = build_model(tiny.model_copy(update={"channels": 16, "fusion": "none"}))
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    torch.save(wider.state_dict(), tmp_path / "wider.pth")
    with pytest.raises(CheckpointError, match=r"\(16, 27, 1, 3, 3\) for \(8, 27, 1, 3, 3\)"):
        load_weights(plain, tmp_path / "wider.pth")
    torch.save({"somewhere.else": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"somewhere\.else"):
        load_weights(plain, tmp_path / "other.pth")
    torch.save({"conv_first.weight": torch.zeros(8, 27, 1, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match="only a part"):
        load_weights(plain, tmp_path / "part.pth")
    assert all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())


@pytest.mark.parametrize("name", ["bad.safetensors", "bad.pth"])
def test_files_that_are_no_weights(name: str, plain: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=name):
        load_weights(plain, tmp_path / name)
    with pytest.raises(CheckpointError, match="no such"):
        load_weights(plain, tmp_path / "absent")


def test_code_is_never_unpickled(plain: torch.nn.Module, tmp_path: Path) -> None:
    torch.save({"params": Path}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError):
        load_weights(plain, tmp_path / "code.pth")
