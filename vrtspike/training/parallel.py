"""Shard one model over many processes (FSDP2), block by block.

`fully_shard` keeps a slice of every parameter on each rank, gathers the parameters of a block when
the block runs, and scatters its gradients (averaged over ranks). Every rank builds the model on the
meta device, which takes no memory. Only the first rank builds it with values, in main memory; it
sends one tensor at a time, and each rank keeps its slice. So the weights do not depend on the
number of ranks, and no device ever holds the whole model.

In hybrid sharding, the ranks of each node share one copy of the weights, and gradients are also
averaged over nodes. The model itself sets up activation checkpointing before this.
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
    """A model that can be trained here."""

    def blocks(self) -> list[nn.Module]:
        """Return the modules to compile and shard one by one."""
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
    """Build a model sharded over all processes; each rank has its slices on `device`.

    `build` runs on every rank, so it must be cheap on the meta device. The random values that it
    draws, and the weights that `load` reads into the model, are used from the first rank only.
    `reshard` frees the gathered parameters after each forward pass. With `ranks_per_node`, the
    ranks of a node share one copy of the weights; their ranks must be consecutive. If `build` or
    `load` raises a VrtSpikeError on the first rank, all ranks raise it.
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
    _copy_to_ranks(_build_on_first_rank(build, load, device), model, device)
    return model


def reshard_all(model: nn.Module) -> None:
    """Free all gathered parameters, so that `parameters()` are shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def synchronize_gradients(model: nn.Module, enabled: bool, *, reshard: bool) -> None:
    """Turn gradient synchronisation on (last micro-batch of a step) or off (all others).

    If `reshard` is false, parameters stay gathered until the last micro-batch has run.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(enabled)
        model.set_reshard_after_backward(enabled or reshard)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """Gather the whole state dict on the CPU of rank 0; the other ranks get an empty one.

    All ranks must call it.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered = cast("dict[str, Tensor]", get_model_state_dict(model, options=options))
    # A single rank on the CPU gathers nothing, so without a copy these would be the live weights.
    return {name: weight.clone() for name, weight in gathered.items()}


def _mesh(device: torch.device, ranks_per_node: int | None) -> DeviceMesh:
    """Build the device mesh: one row of all ranks, or one row for each node."""
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
    """Return a model's tensors by name on the first rank, None on others; all raise its error."""
    tensors: dict[str, Tensor] = {}

    def build_all() -> None:
        model = build()
        if load is not None:
            load(model)
        tensors.update(_tensors(model))

    from_first_rank(build_all, device=device)
    return tensors if dist.get_rank() == 0 else None


@torch.no_grad()
def _copy_to_ranks(
    weights: dict[str, Tensor] | None, model: nn.Module, device: torch.device
) -> None:
    """Copy the first rank's tensors into `model` on all ranks; this empties `weights`."""
    for name, target in _tensors(model):
        if weights is None:
            whole = torch.empty(target.shape, dtype=target.dtype, device=device)
        else:
            # Removed one by one, so that the first rank never holds the model twice.
            whole = weights.pop(name).detach().to(device).contiguous()
        dist.broadcast(whole, 0)
        if isinstance(target, DTensor):
            mesh, placements = target.device_mesh, target.placements
            whole = local(distribute_tensor(whole, mesh, placements, src_data_rank=None))
        local(target.detach()).copy_(whole)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters and buffers with their names, including non-persistent buffers."""
    yield from model.named_parameters()
    yield from model.named_buffers()
