"""Recomputation: keep a part's inputs for the backward pass instead of what it makes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

KEPT_ELEMENTS = 2**20
"""Up to so many elements (4 MiB in float32) are not worth the calls that make them again."""
_growth = ContextVar("growth", default=1.0)


def is_small(elements: int, most: int | None = None) -> bool:
    """Tell whether so many elements are kept, though asked to be made again."""
    return elements * _growth.get() <= (KEPT_ELEMENTS if most is None else most)


@contextmanager
def as_if_larger(times: float) -> Iterator[None]:
    """Keep inside the block what would be kept of a clip so many times larger."""
    token = _growth.set(times)
    try:
        yield
    finally:
        _growth.reset(token)


def recompute(part: Callable[..., Tensor], *inputs: Tensor, wanted: bool = True) -> Tensor:
    """Return `part(*inputs)`; if wanted, keep the inputs alone and run it again for the backward.

    A linear layer or a convolution at the end of a part is not run again: what its gradient needs
    is its input. `part` draws no random numbers.
    """
    if not (wanted and torch.is_grad_enabled()):
        return part(*inputs)
    out: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
