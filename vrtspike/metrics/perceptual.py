"""Perceptual distances: differences of frozen ImageNet features (VGG16, AlexNet).

In: RGB frames in [0, 1], `(n, 3, h, w)`. Out: one differentiable number for each frame.

The networks are torchvision's. Their convolutional layers come from a folder that holds
`vgg16_features.pt` and `alexnet_features.pt` (`features.N.weight|bias`, as torchvision names them),
or from torchvision, which downloads them once. LPIPS (Zhang et al. 2018, version 0.1, AlexNet) adds
the linear layers that the lpips package ships: unit-normalised features, squared difference,
weighted by channel, mean over pixels, sum over five layers. The package's own network is not used:
it only compares pairs, and evaluation looks at a frame once for all its comparisons.

    tLP = |LPIPS(r_t-1, r_t) - LPIPS(s_t-1, s_t)|       (Chu et al. 2020)
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import DataFormatError, ResourceError

Network = Literal["vgg16", "alexnet"]

RELU3_3 = 16
"""Layers of VGG16 up to and with relu3_3."""
RELU5 = 12
"""Layers of AlexNet up to and with its fifth ReLU."""
LPIPS_SMALLEST = 32


class PerceptualLoss(nn.Module):
    """L1 distance of the features after relu3_3 of VGG16 (the layer of Johnson et al. 2016)."""

    def __init__(self, weights_dir: Path | None = None) -> None:
        super().__init__()
        self.features = _layers("vgg16", RELU3_3, weights_dir)
        self.mean = nn.Buffer(torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(
        self, restored: Float[Tensor, "n 3 h w"], sharp: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return each frame's distance."""
        with torch.no_grad():
            sharp_features = self.features((sharp - self.mean) / self.std)
        restored_features = self.features((restored - self.mean) / self.std)
        distance: Tensor = (restored_features - sharp_features).abs().mean(dim=(1, 2, 3))
        return distance


class LPIPS(nn.Module):
    """Learned perceptual distance (AlexNet); equals version 0.1 of the lpips package."""

    def __init__(self, weights_dir: Path | None = None) -> None:
        super().__init__()
        self.features = _layers("alexnet", RELU5, weights_dir)
        self.linear = nn.ParameterList(_lpips_linear_layers())
        # LPIPS' own, for inputs in [-1, 1].
        self.shift = nn.Buffer(torch.tensor((-0.030, -0.088, -0.188)).view(3, 1, 1))
        self.scale = nn.Buffer(torch.tensor((0.458, 0.448, 0.450)).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(
        self, restored: Float[Tensor, "n 3 h w"], sharp: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return each frame's distance."""
        return self.distance(self.look(restored), self.look(sharp))

    def look(self, frames: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Return the unit-normalised features after each of the five ReLUs, for `distance`.

        So a frame that is compared several times needs only one pass. Raise DataFormatError if the
        frames are too small.
        """
        if min(frames.shape[-2:]) < LPIPS_SMALLEST:
            raise DataFormatError(
                "frames are too small for LPIPS",
                got=f"{frames.shape[-2]}x{frames.shape[-1]}",
                expected=f"at least {LPIPS_SMALLEST}x{LPIPS_SMALLEST}",
            )
        x = (2 * frames - 1 - self.shift) / self.scale
        features = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                features.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return features

    def distance(self, found: list[Tensor], wanted: list[Tensor]) -> Float[Tensor, " n"]:
        """Return the distance of frames by their features."""
        layers = [
            F.conv2d((one - other).square(), weight).mean(dim=(1, 2, 3))
            for one, other, weight in zip(found, wanted, self.linear, strict=True)
        ]
        return torch.stack(layers).sum(dim=0)


def _layers(network: Network, count: int, weights_dir: Path | None) -> nn.Sequential:
    """Return a network's first layers with ImageNet weights, from the folder or torchvision."""
    from torchvision import models

    with torch.device("meta"):
        layers: nn.Sequential = models.get_model(network, weights=None).features[:count]
    state = _download(network) if weights_dir is None else _read(network, weights_dir)
    layers.to_empty(device="cpu")
    layers.load_state_dict({name: state[f"features.{name}"] for name in layers.state_dict()})
    return layers


def _read(network: Network, weights_dir: Path) -> dict[str, Tensor]:
    """Read the weights of a network from the user's folder."""
    file = weights_dir / f"{network}_features.pt"
    if not file.is_file():
        raise _missing(network, where=file, got="no such file")
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _download(network: Network) -> dict[str, Tensor]:
    """Read a network's weights from torchvision's cache, or download them."""
    from torchvision import models

    weights = models.get_model_weights(network).IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise _missing(network, where=folder, got=f"no download: {error}") from error
    return state


def _missing(network: Network, **facts: Any) -> ResourceError:
    """Return the error on weights that are not there, which says what can be done."""
    switch = "loss.vgg" if network == "vgg16" else "loss.lpips and evaluation.lpips"
    return ResourceError(
        f"the ImageNet weights of {network} are not on this machine",
        fix=f"set loss.weights_dir to a folder with {network}_features.pt (its convolutional "
        "layers, saved on a machine with internet from "
        f"torchvision.models.{network}), or switch off {switch}",
        **facts,
    )


def _lpips_linear_layers() -> list[Tensor]:
    """Read the five linear layers `(1, c, 1, 1)` from the lpips package."""
    file = importlib.resources.files("lpips") / "weights" / "v0.1" / "alex.pth"
    with importlib.resources.as_file(file) as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{index}.model.1.weight"] for index in range(5)]
