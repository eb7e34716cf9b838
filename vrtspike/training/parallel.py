"""One model over many processes: compile each block, shard each block, then the rest.

`fully_shard` (FSDP2) keeps a slice of every parameter on each rank, gathers a block's parameters
when it runs and scatters its gradients (averaged over ranks). All ranks must hold equal weights
when they call it. Activation checkpointing is the model's own business, and comes before.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


class Sharded(Protocol):
    """What a model must offer to be trained here."""

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        ...


def parallelize(
    model: nn.Module, device: torch.device, *, compile_blocks: bool, reshard: bool
) -> nn.Module:
    """Compile and shard a model in place over all processes; return it."""
    blocks = cast(Sharded, model).blocks()
    if compile_blocks:
        for block in blocks:
            block.compile()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard)
    return cast(nn.Module, fully_shard(model, mesh=mesh, reshard_after_forward=reshard))


def reshard_all(model: nn.Module) -> None:
    """Drop gathered parameters everywhere, so that `parameters()` are shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def synchronize_gradients(model: nn.Module, wanted: bool) -> None:
    """Switch the scattering of gradients on (last micro-batch of a step) or off (the others)."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """Gather the whole state dict on the CPU of rank 0; the other ranks get an empty one."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered = cast("dict[str, Tensor]", get_model_state_dict(model, options=options))
    # One rank on the CPU gathers nothing: without a copy these would be the live weights.
    return {name: weight.clone() for name, weight in gathered.items()}
