"""This rank's part of a sharded model: plain tensors that share memory with it.

Optimiser, average, norm and clipping work element by element, so each rank does them on its own
slices as ordinary tensors. Doing the same on the distributed tensors gives the same numbers, after
seconds of planning in the first step and milliseconds of dispatch in every one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor (sharing memory), or the tensor itself."""
    # `to_local` would take part in autograd.
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, part: Tensor) -> Tensor:
    """Return the sharded tensor of the layout of `whole` whose part on this rank is `part`."""
    if not isinstance(whole, DTensor):
        return part
    return DTensor.from_local(
        part,
        whole.device_mesh,
        whole.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


class LocalParameters:
    """The parameters of a sharded model by name: as the model holds them, and this rank's parts.

    `replica` is the copy of the weights, from 0, that the parts belong to: hybrid sharding makes
    one for each node.
    """

    def __init__(self, model: nn.Module) -> None:
        self.wholes = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parts = {name: nn.Parameter(local(p.detach())) for name, p in self.wholes.items()}
        self.replica = max((_replica(p) for p in self.wholes.values()), default=0)

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for tensors in (self.wholes, self.parts):
            for tensor in tensors.values():
                tensor.grad = None

    def take_gradients(self) -> list[Tensor]:
        """Give each part its gradient, where there is one; return them."""
        gradients = []
        for whole, part in zip(self.wholes.values(), self.parts.values(), strict=True):
            if whole.grad is not None:
                part.grad = local(whole.grad)
                gradients.append(part.grad)
        return gradients

    @torch.no_grad()
    def copy_from(self, source: list[Tensor]) -> None:
        """Overwrite the parts."""
        torch._foreach_copy_(self.tensors(), source)

    def tensors(self) -> list[Tensor]:
        """Return the parts in order."""
        return list(self.parts.values())


def _replica(whole: Tensor) -> int:
    """Return which of its equal copies this rank holds a part of."""
    if not isinstance(whole, DTensor):
        return 0
    place = whole.device_mesh.get_coordinate()
    assert place is not None, "every rank is in the mesh"
    copies = [at for at, how in zip(place, whole.placements, strict=True) if how.is_replicate()]
    return max(copies, default=0)
