"""Recomputation (activation checkpointing): keep only the inputs of a part for the backward pass,
and compute its intermediate results again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

KEPT_ELEMENTS = 2**20
"""Recomputing up to this many elements (4 MiB in float32) saves too little memory for its time."""
_growth = ContextVar("growth", default=1.0)


def is_small(elements: int, most: int | None = None) -> bool:
    """Return whether a tensor of this many elements is kept although recomputation is on.

    `most` is the limit; by default `KEPT_ELEMENTS`.
    """
    return elements * _growth.get() <= (KEPT_ELEMENTS if most is None else most)


@contextmanager
def as_if_larger(times: float) -> Iterator[None]:
    """Inside the block, decide `is_small` as for a clip that is `times` larger."""
    token = _growth.set(times)
    try:
        yield
    finally:
        _growth.reset(token)


def recompute(part: Callable[..., Tensor], *inputs: Tensor, wanted: bool = True) -> Tensor:
    """Return `part(*inputs)`; if wanted, keep only the inputs and recompute in the backward pass.

    A linear layer or convolution at the end of `part` is not run again, because its gradient needs
    only its input. `part` must not draw random numbers.
    """
    if not (wanted and torch.is_grad_enabled()):
        return part(*inputs)
    out: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
