"""Chunks of the picture."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from vrtspike.model.chunks import Chunks


@pytest.mark.parametrize("shape", ["square", "rows"])
@pytest.mark.parametrize("unit", [1, 4])
def test_chunks_fit_the_limit_and_are_whole_windows(
    shape: Literal["square", "rows"], unit: int
) -> None:
    for size in (None, 3, 8, 100):
        for limit in (1, 60, 500, 10_000):
            rows, columns = Chunks(size, shape, limit, unit).extent(6, 20, 50)
            assert 6 * rows * columns <= limit or (rows, columns) == (unit, unit)
            assert all(n % unit == 0 or n == whole for n, whole in ((rows, 20), (columns, 50)))
            if size is not None:
                assert rows <= max(size, unit)


def test_shapes() -> None:
    assert Chunks().extent(6, 20, 50) == (20, 50)
    assert Chunks(8).extent(6, 20, 50) == (8, 8)
    assert Chunks(8, "rows").extent(6, 20, 50) == (8, 50)
    assert Chunks(None, "rows", 6 * 100).extent(6, 20, 50) == (2, 50)
    assert Chunks(None, "square", 6 * 100).extent(6, 20, 50) == (10, 10)
    assert Chunks(None, "rows", 6 * 10).extent(6, 20, 50) == (1, 10)


def test_chunked_equals_whole() -> None:
    seen: list[int] = []

    def part(x: Tensor, y: Tensor) -> Tensor:
        seen.append(x[:, :1, ..., 0].numel() * max(x.shape[1], y.shape[1]))
        return x * y.exp().mean(1, keepdim=True)

    outputs = []
    for chunks in (Chunks(), Chunks(3, "square", 100)):
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2, 3, 7, 5, 4, generator=generator).requires_grad_()
        y = torch.rand(2, 6, 7, 5, 4, generator=generator).requires_grad_()
        seen.clear()
        out = chunks.run(part, x, y)
        out.square().sum().backward()
        outputs.append((out, x.grad, y.grad))
    for whole, chunked in zip(*outputs, strict=True):
        torch.testing.assert_close(whole, chunked)
    assert max(seen) <= 100


@pytest.mark.parametrize(("chunks", "checkpoint"), [(Chunks(4), False), (Chunks(), True)])
def test_training_keeps_only_the_inputs_of_a_chunk(chunks: Chunks, checkpoint: bool) -> None:
    """What is kept for the backward pass are views of the inputs, not what a part makes."""
    x = torch.rand(1, 2, 8, 8, 4, requires_grad=True)
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        chunks.run(lambda x: x.exp().sin(), x, checkpoint=checkpoint)
    assert kept <= {x.untyped_storage().data_ptr()}
