"""Recomputation: keep a part's inputs for the backward pass instead of what it makes on the way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(part: Callable[..., Tensor], *inputs: Tensor, wanted: bool = True) -> Tensor:
    """Return `part(*inputs)`; if wanted, keep the inputs alone and run it again for the backward.

    A linear layer or a convolution at the end of a part is not run again: what its gradient needs
    is its input. `part` draws no random numbers.
    """
    if not (wanted and torch.is_grad_enabled()):
        return part(*inputs)
    out: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
