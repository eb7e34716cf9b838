"""The flow network alone, as it is trained on pairs of frames, and out of the weights of a model.

In: pairs `(n, 2, 3, h, w)` in [0, 1]. Out: flows first -> second at scales 1, 1/2, 1/4, 1/8 (see
`vrtspike.model.spynet`). The names of its weights are those that they have in a VRT.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from vrtspike.errors import CheckpointError
from vrtspike.model.spynet import SpyNet
from vrtspike.model.weights import read_state

PREFIX = "spynet."


class FlowNetwork(nn.Module):
    """A `SpyNet` over pairs."""

    def __init__(self, channels: tuple[int, int, int, int] = (32, 64, 32, 16)) -> None:
        super().__init__()
        self.spynet = SpyNet(channels)

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return [self.spynet]

    def forward(self, pairs: Float[Tensor, "n 2 3 h w"], scale: int = 1) -> list[Tensor]:
        """Return the flows of pairs, or of `scale` times reduced ones, finest first."""
        first, second = pairs.unbind(1)
        flows: list[Tensor] = self.spynet(first, second, scale=scale)
        return flows


def read_flow_network(path: Path) -> FlowNetwork:
    """Build the flow network in a file of weights, its own or those of a whole model."""
    state = read_state(path)
    if any(name.startswith("basic_module.") for name in state):
        state = {f"{PREFIX}{name}": tensor for name, tensor in state.items()}
    own = {
        f"{PREFIX}{name.partition(PREFIX)[2]}": tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX) or f".{PREFIX}" in name
    }
    convs = [own.get(f"{PREFIX}basic_module.0.basic_module.{i}.weight") for i in (0, 2, 4, 6)]
    widths = [len(conv) for conv in convs if conv is not None]
    if len(widths) != len(convs):
        raise CheckpointError(
            "the file holds no flow network",
            where=path,
            got=f"{len(state)} tensors",
            expected="weights of a flow network, or of a model with one",
        )
    network = FlowNetwork((widths[0], widths[1], widths[2], widths[3]))
    try:
        # Files of a flow network alone may lack its constants.
        network.load_state_dict(network.state_dict() | own)
    except RuntimeError as error:
        raise CheckpointError(
            "the flow network of the file is not one of ours",
            where=path,
            got=str(error).splitlines()[-1].strip(),
        ) from None
    return network.eval()
