"""The attention block: recomputed, compiled, in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vrtspike.model import attention
from vrtspike.model.attention import AttentionBlock
from vrtspike.model.window_attention import attend_by_sdpa
from vrtspike.model.windows import Window

WINDOW: Window = (2, 4, 4)


def make_block(*, checkpoint: bool = False) -> AttentionBlock:
    """Return a shifted block with mutual attention; every one has the same weights."""
    torch.manual_seed(0)
    return AttentionBlock(
        8,
        WINDOW,
        (1, 2, 2),
        2,
        1.0,
        0.0,
        mutual=True,
        checkpoint_attention=checkpoint,
        checkpoint_mlp=checkpoint,
    )


def values_and_gradients(block: AttentionBlock, x: Tensor) -> list[Tensor]:
    """Return the output and every gradient of a loss on it."""
    out = block(x)
    return [out, *torch.autograd.grad(out.square().mean(), [x, *block.parameters()])]


@pytest.fixture
def video() -> Tensor:
    """Return a feature (1, 3, 6, 9, 8): no axis is a multiple of the window."""
    return torch.randn(1, 3, 6, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_recomputing_changes_nothing(video: Tensor) -> None:
    kept = values_and_gradients(make_block(), video)
    for expected, got in zip(
        kept, values_and_gradients(make_block(checkpoint=True), video), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # Dynamo's, of the shape checks in tests too
@pytest.mark.parametrize("by_sdpa", [False, True])
def test_compiled_equals_eager(
    by_sdpa: bool, video: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways: in blocks, as on a CPU, and by the library, as on a GPU."""
    if by_sdpa:
        monkeypatch.setattr(attention, "attend_windows", attend_by_sdpa)
    expected = values_and_gradients(make_block(), video)
    block = make_block()
    block.compile(backend="aot_eager")
    for ours, theirs in zip(values_and_gradients(block, video), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_half_precision_is_close(video: Tensor) -> None:
    block = make_block()
    with torch.autocast("cpu", torch.bfloat16):
        half = block(video)
    torch.testing.assert_close(half.float(), block(video), atol=0.05, rtol=0.05)
