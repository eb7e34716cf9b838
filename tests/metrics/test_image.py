"""PSNR, SSIM, luma and LPIPS equal the implementations that published tables were made with."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from vrtspike.errors import DataFormatError, ResourceError
from vrtspike.metrics.image import luma, psnr, ssim, tdiff, to_uint8
from vrtspike.metrics.perceptual import LPIPS


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


def similarity(sharp: np.ndarray, worse: np.ndarray, **channels: int) -> float:
    found: float = structural_similarity(
        sharp,
        worse,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        **channels,
    )
    return found


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
        similarity(_channels_last(s), _channels_last(w), channel_axis=-1)
        for w, s in zip(worse, sharp, strict=True)
    ]
    assert ssim(worse, sharp).tolist() == pytest.approx(expected, abs=1e-9)


def test_luma_and_its_psnr_and_ssim_equal_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    theirs = [[rgb2ycbcr(_channels_last(f))[..., 0] for f in frames] for frames in pair]
    ours = [luma(frames) for frames in pair]
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found[:, 0].numpy(), np.stack(expected), rtol=0, atol=1e-10)
    noise = [peak_signal_noise_ratio(s, w, data_range=255) for w, s in zip(*theirs, strict=True)]
    alike = [similarity(s, w) for w, s in zip(*theirs, strict=True)]
    assert psnr(*ours).tolist() == pytest.approx(noise, abs=1e-9)
    assert ssim(*ours).tolist() == pytest.approx(alike, abs=1e-9)


def test_luma_of_black_and_white_is_that_of_video() -> None:
    frame = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    assert luma(frame).flatten().tolist() == pytest.approx([16.0, 235.0])


def test_tdiff_is_the_mean_difference_of_the_changes(pair: tuple[Tensor, Tensor]) -> None:
    worse, sharp = pair
    total = 0.0
    for c, y, x in np.ndindex(*worse.shape[1:]):
        change = int(worse[1, c, y, x]) - int(worse[0, c, y, x])
        total += abs(change - (int(sharp[1, c, y, x]) - int(sharp[0, c, y, x])))
    found = tdiff(worse[0], worse[1], sharp[0], sharp[1])
    assert found.item() == pytest.approx(total / worse[0].numel(), rel=1e-12)


def test_what_is_wrong_alike_in_all_frames_does_not_flicker(pair: tuple[Tensor, Tensor]) -> None:
    sharp = pair[1].clamp(min=9)
    darker = sharp - 9
    assert tdiff(darker[0], darker[1], sharp[0], sharp[1]).item() == 0.0
    black, white = torch.zeros_like(sharp), torch.full_like(sharp, 255)
    assert tdiff(black, white, white, black).tolist() == [510.0, 510.0]


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
        ours = LPIPS(shared / "weights")
        found = ours(worse, sharp)
        once = ours.distance(ours.look(worse), ours.look(sharp))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert torch.equal(once, found)
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
