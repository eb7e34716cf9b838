"""One model over many processes: built once, compiled and sharded block by block, then the rest.

`fully_shard` (FSDP2) keeps a slice of every parameter on each rank, gathers a block's parameters
when it runs and scatters its gradients (averaged over ranks). Every rank builds the model without
memory (on the meta device); the first rank alone builds it for real, in main memory, and sends one
tensor at a time, of which each rank keeps its slice. So the weights do not depend on the number of
ranks, and no device ever holds the whole model.

In hybrid sharding the ranks of a node share one copy of the weights, and gradients are averaged
over nodes besides. Activation checkpointing is the model's own business, and comes before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vrtspike.checkpoints.local_part import local
from vrtspike.training.rank_sync import from_first_rank


class Sharded(Protocol):
    """What a model must offer to be trained here."""

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        ...


def parallelize(
    build: Callable[[], nn.Module],
    device: torch.device,
    *,
    load: Callable[[nn.Module], object] | None = None,
    compile_blocks: bool,
    reshard: bool,
    ranks_per_node: int | None = None,
) -> nn.Module:
    """Build a model that all processes share, each with its slices on `device`.

    `build` runs on every rank, so it must be cheap on the meta device; what it draws, and `load`
    (files to start from), count on the first rank only. With `ranks_per_node`, ranks of a node
    follow one another, and share one copy. An error of ours on the first rank is raised on all.
    """
    mesh = _mesh(device, ranks_per_node)
    with torch.device("meta"):
        model = build()
    blocks = cast(Sharded, model).blocks()
    if compile_blocks:
        for block in blocks:
            block.compile()
    for part in (*blocks, model):
        fully_shard(part, mesh=mesh, reshard_after_forward=reshard)
    model.to_empty(device=device)
    _spread(_build_on_first_rank(build, load, device), model, device)
    return model


def reshard_all(model: nn.Module) -> None:
    """Drop gathered parameters everywhere, so that `parameters()` are shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def synchronize_gradients(model: nn.Module, wanted: bool, *, reshard: bool) -> None:
    """Switch the scattering of gradients on (last micro-batch of a step) or off (the others).

    Without `reshard`, parameters stay gathered until the last micro-batch is through.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)
        model.set_reshard_after_backward(wanted or reshard)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """Gather the whole state dict on the CPU of rank 0; the other ranks get an empty one."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered = cast("dict[str, Tensor]", get_model_state_dict(model, options=options))
    # One rank on the CPU gathers nothing: without a copy these would be the live weights.
    return {name: weight.clone() for name, weight in gathered.items()}


def _mesh(device: torch.device, ranks_per_node: int | None) -> DeviceMesh:
    """Arrange the ranks: all in one row, or a row of each node."""
    world = dist.get_world_size()
    if ranks_per_node is None or ranks_per_node == world:
        return init_device_mesh(device.type, (world,))
    assert world % ranks_per_node == 0, "a mesh has rows of one length"
    shape = (world // ranks_per_node, ranks_per_node)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


def _build_on_first_rank(
    build: Callable[[], nn.Module],
    load: Callable[[nn.Module], object] | None,
    device: torch.device,
) -> dict[str, Tensor] | None:
    """Return all tensors of a model by name on the first rank, None on others; raise its error."""
    tensors: dict[str, Tensor] = {}

    def build_all() -> None:
        model = build()
        if load is not None:
            load(model)
        tensors.update(_tensors(model))

    from_first_rank(build_all, device=device)
    return tensors if dist.get_rank() == 0 else None


@torch.no_grad()
def _spread(given: dict[str, Tensor] | None, model: nn.Module, device: torch.device) -> None:
    """Send what the first rank is given to all ranks' `model`; `given` is used up."""
    for name, target in _tensors(model):
        if given is None:
            whole = torch.empty(target.shape, dtype=target.dtype, device=device)
        else:
            # Taken out, so that the first rank never holds everything twice.
            whole = given.pop(name).detach().to(device).contiguous()
        dist.broadcast(whole, 0)
        if isinstance(target, DTensor):
            mesh, placements = target.device_mesh, target.placements
            whole = local(distribute_tensor(whole, mesh, placements, src_data_rank=None))
        local(target.detach()).copy_(whole)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name all parameters and buffers, also those that no state dict holds."""
    yield from model.named_parameters()
    yield from model.named_buffers()
