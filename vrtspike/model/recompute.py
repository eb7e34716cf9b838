"""Recomputation: keep a part's inputs for the backward pass instead of what it makes on the way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return `part(*inputs)`; in the backward pass run it again, up to what was kept last.

    A linear layer or a convolution at the end of a part is not run again: what its gradient needs
    is its input. `part` draws no random numbers.
    """
    if not torch.is_grad_enabled():
        return part(*inputs)
    out: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
