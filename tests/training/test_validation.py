"""Scores of whole frames: means over all of them, on 8 bits, and a picture of the first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from tests.training.two_blocks import CPU, Arrays, TwoBlocks, batch
from vrtspike.training.step import to_device
from vrtspike.training.validation import ValidationScore, validate


class Clips:
    """Samples to validate on."""

    def whole(self, index: int) -> Arrays:
        return batch(1, index, side=16)


class Guessing(TwoBlocks):
    """Give the blurred frames, darker, as a first guess."""

    def forward(  # type: ignore[override]
        self, blurred: Tensor, voxels: Tensor | None = None, with_guess: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        restored = super().forward(blurred, voxels)
        return (restored, blurred - 20 / 255) if with_guess else restored


def validated(
    model: nn.Module, samples: int, turns: list[int]
) -> tuple[ValidationScore, NDArray[np.uint8] | None]:
    return validate(
        model,
        Clips(),  # type: ignore[arg-type]
        samples,
        device=CPU,
        autocast=torch.autocast("cpu", enabled=False),
        guessed=isinstance(model, Guessing),
        alive=lambda: turns.append(1),
    )


def test_scores_are_means_over_all_frames(alone: None, plain: TwoBlocks) -> None:
    turns: list[int] = []
    score, picture = validated(plain, 3, turns)
    assert len(turns) == 3 and plain.training
    plain.eval()
    found, before, shown = [], [], []
    for index in range(3):
        arrays = Clips().whole(index)
        blurred, _, voxels = to_device(arrays, CPU)
        with torch.no_grad():
            restored = plain(blurred, voxels)[0].numpy()
        bytes_of = (np.clip(restored, 0, 1) * 255).round().astype(np.uint8)
        for frame in range(2):
            sharp, given = arrays["sharp"][0, frame], arrays["blurred"][0, frame]
            found.append(peak_signal_noise_ratio(sharp, bytes_of[frame]))
            before.append(peak_signal_noise_ratio(sharp, given))
            shown.append(np.concatenate([given, bytes_of[frame], sharp], axis=2))
    assert score.psnr == pytest.approx(np.mean(found))
    assert score.blurred_psnr == pytest.approx(np.mean(before))
    assert picture is not None and picture.dtype == np.uint8
    # The second of two frames is the middle one.
    assert np.array_equal(picture, shown[1].transpose(1, 2, 0))
    assert score.guess_psnr is None


def test_a_first_guess_is_scored_beside_what_is_made_of_it(alone: None) -> None:
    torch.manual_seed(0)
    model = Guessing()
    score, _ = validated(model, 2, [])
    guesses = []
    for index in range(2):
        arrays = Clips().whole(index)
        darker = (arrays["blurred"][0].astype(int) - 20).clip(0).astype(np.uint8)
        pairs = zip(arrays["sharp"][0], darker, strict=True)
        guesses += [peak_signal_noise_ratio(sharp, guess) for sharp, guess in pairs]
    assert score.guess_psnr == pytest.approx(np.mean(guesses))
    assert score.psnr != pytest.approx(score.guess_psnr)
