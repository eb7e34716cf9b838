"""The metrics take frames in their range and shape, and refuse what would give a wrong number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vrtspike.errors import DataFormatError
from vrtspike.metrics.image import luma, psnr, ssim

RNG = np.random.default_rng(0)
SHARP = RNG.integers(0, 256, (2, 16, 20, 3), np.uint8)
RESTORED = np.clip(SHARP + RNG.normal(0, 9, SHARP.shape), 0, 255).round().astype(np.uint8)
TENSORS = tuple(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (RESTORED, SHARP))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_every_form_gives_the_number_of_bytes(measure: Any) -> None:
    expected = measure(*TENSORS)
    for scale in (np.float32, np.float64):
        floats = [x.astype(scale) / scale(255) for x in (RESTORED, SHARP)]
        assert torch.allclose(measure(*floats), expected, atol=1e-4)
    assert torch.allclose(measure(RESTORED, SHARP), expected, atol=1e-9)
    turned = measure(RESTORED[..., ::-1], SHARP[..., ::-1])
    assert torch.allclose(turned, expected, atol=1e-9)
    assert measure(*map(luma, TENSORS)).shape == (2,)


def test_other_ranges_and_shapes_are_refused() -> None:
    restored, sharp = TENSORS
    for wrong in (sharp / 255 * 2 - 1, sharp.double(), sharp.int(), sharp > 3, sharp[..., 0]):
        with pytest.raises(DataFormatError, match="sharp frames must be"):
            psnr(restored, wrong)
    for other in (sharp[:1], sharp[..., 1:], sharp[:, :1]):
        with pytest.raises(DataFormatError, match="of one shape"):
            ssim(restored, other)
