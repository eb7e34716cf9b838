"""The optical flow network without VRT, to train it on pairs of frames or to read it from a file.

In: pairs `(n, 2, 3, h, w)` in [0, 1]. Out: flows from the first frame to the second at scales 1,
1/2, 1/4, 1/8 (see `vrtspike.model.spynet`). The weights have the same names as in a VRT.
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
    """A `SpyNet` that takes pairs of frames."""

    def __init__(self, channels: tuple[int, int, int, int] = (32, 64, 32, 16)) -> None:
        super().__init__()
        self.spynet = SpyNet(channels)

    def blocks(self) -> list[nn.Module]:
        """Return the parts that are compiled and sharded one by one."""
        return [self.spynet]

    def forward(self, pairs: Float[Tensor, "n 2 3 h w"], scale: int = 1) -> list[Tensor]:
        """Return the flows `(n, 2, h/s, w/s)`, finest first, in pixels of their own scale.

        `scale` (1, 2, 4, 8) says how many times the frames of the pairs were reduced.
        """
        first, second = pairs.unbind(1)
        flows: list[Tensor] = self.spynet(first, second, scale=scale)
        return flows


def read_flow_network(path: Path) -> FlowNetwork:
    """Read a flow network from its own weights file or from the weights of a whole model.

    Raise CheckpointError if the file has no flow network, or one of another architecture.
    """
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
        # A file with only a flow network may lack its constants.
        network.load_state_dict(network.state_dict() | own)
    except RuntimeError as error:
        raise CheckpointError(
            "the flow network of the file is not one of ours",
            where=path,
            got=str(error).splitlines()[-1].strip(),
        ) from None
    return network.eval()
