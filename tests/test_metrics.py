"""PSNR, SSIM and LPIPS equal the implementations that published tables were made with."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from vrtspike.errors import DataFormatError, ResourceError
from vrtspike.metrics import psnr, ssim, to_uint8
from vrtspike.perceptual import LPIPS


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Return photographs and worse versions of them, uint8 (2, 3, 96, 128)."""
    photograph = data.astronaut()
    sharp = np.stack([photograph[50:146, 150:278], photograph[300:396, 60:188]])
    noise = np.random.default_rng(0).normal(0, (4, 25), size=(96, 128, 3, 2)).transpose(3, 0, 1, 2)
    shifted = np.roll(sharp, (0, 1, 2, 0), (0, 1, 2, 3))
    worse = np.clip(shifted + noise, 0, 255).round().astype(np.uint8)
    return _channels_first(worse), _channels_first(sharp)


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))


def _channels_last(frame: Tensor) -> np.ndarray:
    return frame.permute(1, 2, 0).numpy()


def test_psnr_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    worse, sharp = pair
    expected = [
        peak_signal_noise_ratio(_channels_last(s), _channels_last(w), data_range=255)
        for w, s in zip(worse, sharp, strict=True)
    ]
    assert psnr(worse, sharp).tolist() == pytest.approx(expected, abs=1e-9)


def test_ssim_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    worse, sharp = pair
    expected = [
        structural_similarity(
            _channels_last(s),
            _channels_last(w),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )
        for w, s in zip(worse, sharp, strict=True)
    ]
    assert ssim(worse, sharp).tolist() == pytest.approx(expected, abs=1e-9)


def test_lpips_equals_the_lpips_package(shared: Path, pair: tuple[Tensor, Tensor]) -> None:
    worse, sharp = (frames.float() / 255 for frames in pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    trunk = torch.load(shared / "weights" / "alexnet_features.pt", weights_only=True)
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    theirs.net.load_state_dict(
        {
            f"slice{slices[name.split('.')[1]]}.{name.split('.', 1)[1]}": value
            for name, value in trunk.items()
        }
    )
    with torch.no_grad():
        expected = theirs(worse, sharp, normalize=True).flatten()
        found = LPIPS(shared / "weights")(worse, sharp)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert found[1] > found[0] > 0


def test_batched_equals_single(pair: tuple[Tensor, Tensor]) -> None:
    worse, sharp = pair
    for metric in (psnr, ssim):
        together = metric(worse[None], sharp[None])
        assert together.shape == (1, 2)
        assert together[0, 1].item() == pytest.approx(metric(worse[1], sharp[1]).item(), rel=1e-12)


def test_equal_frames_are_perfect(pair: tuple[Tensor, Tensor]) -> None:
    _, sharp = pair
    assert all(math.isinf(value) for value in psnr(sharp, sharp).tolist())
    assert ssim(sharp, sharp).tolist() == pytest.approx([1.0, 1.0])


def test_rounding_to_8_bits_is_to_the_nearest_and_clips() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.7])
    frame = values.view(1, 2, 3)
    assert to_uint8(frame).flatten().tolist() == [0, 0, 0, 1, 255, 255]


def test_ssim_refuses_frames_smaller_than_its_window() -> None:
    frame = torch.zeros(3, 10, 40, dtype=torch.uint8)
    with pytest.raises(DataFormatError, match="10x40"):
        ssim(frame, frame)


def test_lpips_refuses_tiny_frames_and_says_what_is_missing(shared: Path, tmp_path: Path) -> None:
    tiny = torch.zeros(1, 3, 24, 64)
    with pytest.raises(DataFormatError, match="24x64"):
        LPIPS(shared / "weights")(tiny, tiny)
    with pytest.raises(ResourceError, match=r"alexnet_features\.pt.*loss\.weights_dir"):
        LPIPS(tmp_path)
