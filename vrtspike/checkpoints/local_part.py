"""This rank's slices of a sharded model, as plain tensors that share memory with it.

Optimiser, average, norm and clipping work element by element, so each rank applies them to its own
slices as ordinary tensors. Distributed tensors would give the same numbers, but cost seconds of
planning in the first step and milliseconds of dispatch in every step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """Return this rank's slice of a sharded tensor (same memory); a plain tensor is returned as it
    is."""
    # `to_local` would be recorded by autograd.
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, part: Tensor) -> Tensor:
    """Return a tensor sharded like `whole`, whose slice on this rank is `part`."""
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
    """The trainable parameters of a sharded model, by name.

    `wholes`: the model's own (sharded) parameters. `parts`: this rank's slices of them, sharing
    memory. `replica`: which copy of the weights the slices belong to, from 0; hybrid sharding keeps
    one copy on each node.
    """

    def __init__(self, model: nn.Module) -> None:
        self.wholes = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parts = {name: nn.Parameter(local(p.detach())) for name, p in self.wholes.items()}
        self.replica = max((_replica(p) for p in self.wholes.values()), default=0)

    def drop_gradients(self) -> None:
        """Set all gradients to None."""
        for tensors in (self.wholes, self.parts):
            for tensor in tensors.values():
                tensor.grad = None

    def take_gradients(self) -> list[Tensor]:
        """Set the gradient of each slice from its parameter; return all gradients."""
        gradients = []
        for whole, part in zip(self.wholes.values(), self.parts.values(), strict=True):
            if whole.grad is not None:
                part.grad = local(whole.grad)
                gradients.append(part.grad)
        return gradients

    @torch.no_grad()
    def copy_from(self, source: list[Tensor]) -> None:
        """Copy `source` into the slices, in the order of `tensors`."""
        torch._foreach_copy_(self.tensors(), source)

    def tensors(self) -> list[Tensor]:
        """Return the slices in the model's order."""
        return list(self.parts.values())


def _replica(whole: Tensor) -> int:
    """Return the index of the copy of a parameter that this rank holds a slice of."""
    if not isinstance(whole, DTensor):
        return 0
    place = whole.device_mesh.get_coordinate()
    assert place is not None, "every rank is in the mesh"
    copies = [at for at, how in zip(place, whole.placements, strict=True) if how.is_replicate()]
    return max(copies, default=0)
