"""Golden values of our own, for clones without the reference values of the published model.

Each file in `golden/` holds flows, stage outputs, the output and gradient norms of a tiny model,
computed in float64 by the implementation that agreed with the published one. Weights and inputs are
not stored: both are drawn from raw numbers of PCG64, seeded by their names. To write the files
anew, after a change of numbers that is meant: `python tests/model/test_golden.py`.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vrtspike.config.model import ModelSettings, SpikeBranchSettings
from vrtspike.model import build_model
from vrtspike.model.vrt import VRT

GOLDEN = Path(__file__).parent / "golden"
CASES = ("vrt_3_channels", "vrt_4_channels", "spike_vrt")
STAGES = ("conv_first", *(f"stage{i}" for i in range(1, 8)), "norm")
SHAPE = (3, 24, 32)
"""Frames, height and width: windows are padded and shifted, and SpyNet resizes the frames."""
VOXELS = (3, 4, 12, 16)
"""Frames, bins, and a spike grid half as fine as the frames'."""
SIZE: dict[str, Any] = {
    "channels": 24,
    "refine_channels": 20,
    "blocks": 4,
    "mutual_ratio": 0.5,
    "refine_blocks": 2,
    "refine_groups": (1, 1),
    "heads": 2,
    "window": (2, 4, 4),
    "mlp_ratio": 1.5,
    "drop_path": 0.0,
    "deformable_groups": 2,
    "flow_channels": (8, 8, 8, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_golden_values(case: str) -> None:
    with safe_open(GOLDEN / f"{case}.safetensors", "pt") as file:
        seed = int(file.metadata()["seed"])
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    found = values(case, seed, torch.float32)
    assert found.keys() == golden.keys()
    for key, expected in golden.items():
        limits = {"rtol": 1e-3, "atol": 0.0} if key == "grad_norms" else {"rtol": 0.0, "atol": 1e-4}
        torch.testing.assert_close(found[key], expected, **limits, msg=lambda m, k=key: f"{k}: {m}")


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 400_000


def values(case: str, seed: int, dtype: torch.dtype, nudge: float = 0.0) -> dict[str, Tensor]:
    """Return what the model of a case computes, by name; `nudge` is added to the frames."""
    model = filled(model_of(case)).to(dtype)
    vrt = model if isinstance(model, VRT) else model.vrt
    frames, height, width = SHAPE
    blurred = drawn("blurred", (1, frames, vrt.in_chans, height, width), seed) / 2 + 0.5 + nudge
    inputs = [blurred.to(dtype)]
    if model is not vrt:
        inputs.append((drawn("voxels", (1, *VOXELS), seed) / 2 + 0.5).to(dtype))
    found: dict[str, Tensor] = {}

    def keep(name: str, out: Tensor) -> None:
        found[name] = out[..., 0].detach().clone()  # one channel, which depends on all

    for name in STAGES:
        module = vrt.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out))
    output = model(*inputs)
    for scale, (backward, forward) in enumerate(vrt._flows(inputs[0][:, :, :3])):
        found[f"flow_backward_{scale}"] = backward.detach().contiguous()
        found[f"flow_forward_{scale}"] = forward.detach().contiguous()
    found["output"] = output.detach()
    (output * drawn("output_weights", output.shape, seed).to(dtype)).mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    found["grad_norms"] = torch.stack([gradients[name].norm() for name in sorted(gradients)])
    return found


def model_of(case: str) -> nn.Module:
    """Return the tiny model of a case, with any weights."""
    match case:
        case "vrt_3_channels":
            return VRT(in_chans=3, **SIZE)
        case "vrt_4_channels":
            return VRT(in_chans=4, **SIZE)
        case "spike_vrt":
            spike = SpikeBranchSettings(bins=VOXELS[1], heads=4, blocks=1)
            return build_model(ModelSettings(fusion="temporal", spike=spike, **SIZE))
    raise ValueError(case)


def filled(model: nn.Module) -> nn.Module:
    """Give each parameter values that depend on its name alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = drawn(name, parameter.shape)
            if name.endswith("relative_position_bias_table"):
                value = value / 2
            elif parameter.ndim > 1:
                value = value * (3 / parameter[0].numel()) ** 0.5
            else:
                value = value / 5 + (1 if "norm" in name and name.endswith("weight") else 0)
            parameter.copy_(value)
    return model


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return uniform numbers in [-1, 1), the same with every version of numpy and torch."""
    raw = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw(int(np.prod(shape)))
    return torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).view(shape)


def write(case: str) -> None:
    """Write the file of a case, with the first inputs at which rounding has no say.

    Nearest-4 warping jumps where a flow is near an integer, and gradients jump at kinks: with such
    inputs two right implementations differ. So float32, and inputs moved by about its rounding,
    must give the values that float64 gives.
    """
    for seed in range(100):
        exact = values(case, seed, torch.float64)
        near = [values(case, seed, torch.float32), values(case, seed, torch.float64, nudge=2e-6)]
        if all(close(other[key], exact[key], key) for other in near for key in exact):
            content = {key: value.float() for key, value in exact.items()}
            save_file(content, GOLDEN / f"{case}.safetensors", metadata={"seed": str(seed)})
            return
    raise RuntimeError(f"{case}: no inputs at which rounding has no say")


def close(found: Tensor, exact: Tensor, key: str) -> bool:
    """Tell whether values agree far better than the test asks."""
    rtol, atol = (1e-4, 0.0) if key == "grad_norms" else (0.0, 5e-5)
    return torch.allclose(found.double(), exact, rtol=rtol, atol=atol)


if __name__ == "__main__":
    for case in CASES:
        write(case)
