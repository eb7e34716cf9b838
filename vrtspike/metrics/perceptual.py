"""Perceptual distances: differences of frozen ImageNet features (VGG16, AlexNet).

In: RGB frames in [0, 1], `(n, 3, h, w)`. Out: one differentiable number for each frame.

The convolutional layers come from a folder with `vgg16_features.pt` and `alexnet_features.pt`
(`features.N.weight|bias`, as torchvision names them), or from torchvision, which downloads them
once. LPIPS (Zhang et al. 2018, version 0.1, AlexNet) uses the linear layers of the lpips package:
it normalises the features to unit length, weighs the squared difference by channel, averages over
pixels and sums over five layers.

For a restored video r and a sharp video s, `vrtspike.evaluation.scorer` computes

    tLP = |LPIPS(r_t-1, r_t) - LPIPS(s_t-1, s_t)|       (Chu et al. 2020)
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import DataFormatError, ResourceError

Network = Literal["vgg16", "alexnet"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The normalisation of LPIPS, for inputs in [-1, 1].
LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)
LPIPS_SMALLEST = 32


class PerceptualLoss(nn.Module):
    """L1 distance of the features after relu3_3 of VGG16 (the layer of Johnson et al. 2016)."""

    mean: Tensor
    std: Tensor

    def __init__(self, weights_dir: Path | None = None) -> None:
        super().__init__()
        self.features = _vgg16_relu3_3()
        _load_features(self.features, "vgg16", weights_dir)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))
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

    shift: Tensor
    scale: Tensor

    def __init__(self, weights_dir: Path | None = None) -> None:
        super().__init__()
        self.features = _alexnet()
        _load_features(self.features, "alexnet", weights_dir)
        linear = _lpips_linear_layers()
        for index, weight in enumerate(linear):
            self.register_buffer(f"linear{index}", weight)
        self.layers = len(linear)
        self.register_buffer("shift", torch.tensor(LPIPS_SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(LPIPS_SCALE).view(3, 1, 1))
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

    def distance(self, restored: list[Tensor], sharp: list[Tensor]) -> Float[Tensor, " n"]:
        """Return the distance of each frame, from the features that `look` returned."""
        total = restored[0].new_zeros(restored[0].shape[0])
        for index, (a, b) in enumerate(zip(restored, sharp, strict=True)):
            weight: Tensor = getattr(self, f"linear{index}")
            layer = F.conv2d((a - b).square(), weight)
            total = total + layer.mean(dim=(1, 2, 3))
        return total


def _vgg16_relu3_3() -> nn.Sequential:
    """Build the layers of VGG16 up to relu3_3, with the indices of torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    """Build the convolutional layers of AlexNet, with the indices of torchvision."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _load_features(layers: nn.Sequential, network: Network, weights_dir: Path | None) -> None:
    """Load ImageNet weights into the layers, from `weights_dir` or, if None, from torchvision."""
    state = _torchvision_weights(network) if weights_dir is None else _read(network, weights_dir)
    own = {name: state[f"features.{name}"] for name in layers.state_dict()}
    layers.load_state_dict(own)


def _read(network: Network, weights_dir: Path) -> dict[str, Tensor]:
    """Read the weights of a network from the user's folder."""
    file = weights_dir / f"{network}_features.pt"
    if not file.is_file():
        raise ResourceError(
            f"the ImageNet weights of {network} are not on this machine",
            where=file,
            got="no such file",
            fix=_how_to_get(network),
        )
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _torchvision_weights(network: Network) -> dict[str, Tensor]:
    """Read the weights of a network from torchvision's cache, or download them."""
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    match network:
        case "vgg16":
            weights = VGG16_Weights.IMAGENET1K_V1
        case "alexnet":
            weights = AlexNet_Weights.IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ResourceError(
            f"the ImageNet weights of {network} are not on this machine and cannot be downloaded",
            where=Path(torch.hub.get_dir()) / "checkpoints",
            got=str(error),
            fix=_how_to_get(network),
        ) from error
    return state


def _how_to_get(network: Network) -> str:
    """Return the advice for missing weights in an error."""
    return (
        f"set loss.weights_dir to a folder with {network}_features.pt (its convolutional layers, "
        f"saved on a machine with internet from torchvision.models.{network}), or switch off "
        + ("loss.vgg" if network == "vgg16" else "loss.lpips and evaluation.lpips")
    )


def _lpips_linear_layers() -> list[Tensor]:
    """Read the five linear layers `(1, c, 1, 1)` from the lpips package."""
    file = importlib.resources.files("lpips") / "weights" / "v0.1" / "alex.pth"
    with importlib.resources.as_file(file) as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{index}.model.1.weight"] for index in range(5)]
