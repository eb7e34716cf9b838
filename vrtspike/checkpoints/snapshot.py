"""A copy of this rank's part of the training state, in one block of main memory.

In: a flat dictionary of tensors, sharded (DTensor) or not, on any device. Out: `Snapshot`, the
bytes of all local slices one after another, and the position of each slice in these bytes and in
its whole tensor. The memory is reused, so only the newest copy is valid. All tensors are copied in
one call, because thousands of small copies would take longer than the bytes themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan

from vrtspike.checkpoints.local_part import local


@dataclass(frozen=True)
class TensorSlice:
    """A box of a tensor, stored in the bytes [begin, end) of a snapshot."""

    key: str
    dtype: torch.dtype
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Snapshot:
    """The slices of one rank. `pieces` stays the same object while the layout stays the same."""

    pieces: tuple[TensorSlice, ...]
    memory: memoryview


class SnapshotBuffer:
    """Memory for one snapshot; it is allocated again only if the layout of the state changes."""

    def __init__(self) -> None:
        self._layout: list[tuple[Any, ...]] = []
        self._pieces: tuple[TensorSlice, ...] = ()
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._views: list[Tensor] = []

    @torch.no_grad()
    def copy(self, state: dict[str, Any]) -> Snapshot:
        """Copy a state and overwrite the last copy; afterwards the state's tensors may change."""
        parts = {key: local(value) for key, value in state.items()}
        layout = [
            (key, part.dtype, part.shape, part.device, state[key].shape)
            for key, part in parts.items()
        ]
        if layout != self._layout:
            self._lay_out(state, parts)
            self._layout = layout
        sources = [parts[piece.key] for piece in self._pieces]
        torch._foreach_copy_(self._views, sources, non_blocking=True)
        for device in {source.device for source in sources if source.is_cuda}:
            torch.cuda.synchronize(device)
        return Snapshot(self._pieces, self._memory.numpy().data)

    def _lay_out(self, state: dict[str, Any], parts: dict[str, Tensor]) -> None:
        """Compute the position of each slice, and allocate memory for all."""
        boxes = []
        for item in create_default_local_save_plan(state, is_coordinator=False).items:
            assert item.tensor_data is not None, f"{item.index.fqn} is no tensor"
            box = item.tensor_data.chunk
            # Skip empty slices, which ranks have of small tensors, but keep tensors of no elements.
            if math.prod(box.sizes) or not math.prod(item.tensor_data.size):
                boxes.append((item.index.fqn, tuple(box.offsets), tuple(box.sizes)))
        # Wide types first, so that every slice is aligned to its type.
        boxes.sort(key=lambda box: -parts[box[0]].dtype.itemsize)
        pieces, end = [], 0
        for key, offsets, sizes in boxes:
            begin, end = end, end + math.prod(sizes) * parts[key].dtype.itemsize
            pieces.append(TensorSlice(key, parts[key].dtype, offsets, sizes, begin, end))
        self._pieces = tuple(pieces)
        pinned = any(part.is_cuda for part in parts.values())
        self._memory = torch.empty(end, dtype=torch.uint8, pin_memory=pinned)
        self._views = [
            self._memory[piece.begin : piece.end].view(piece.dtype).view(piece.sizes)
            for piece in self._pieces
        ]
