"""How good found motion is: on rendered scenes, whose motion is exact, and on real video.

In: a flow network, settings of scenes, and a video file or a folder of frames. Out: of each way to
find motion, beside the flow that says that nothing moves, its error and its seconds a pair.

- Scenes of the split `held_out`, whose photographs nothing was trained on, in each way that the
  network sees frames (`vrtspike.simulate.degradation`): the end-point error, the mean distance of
  found and true end points, in pixels.
- Real frames, whose motion nobody knows: the photometric error, the mean absolute difference, in
  gray levels of 255, of the first frame and of the second one warped by the flow.

The classical ways are on gray: TV-L1 (Zach et al. 2007) of scikit-image, and DIS (Kroeger et al.
2016) of OpenCV, by which videos are interpolated. Like the network's, their flow says where each
pixel of the first frame is in the second one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from skimage.registration import optical_flow_tvl1

from vrtspike.config.scenes import SceneSettings
from vrtspike.errors import DataFormatError
from vrtspike.model.flow_network import FlowNetwork
from vrtspike.model.warp import flow_warp
from vrtspike.simulate.degradation import KINDS
from vrtspike.simulate.flow_pairs import PAIRS, FlowPairReader
from vrtspike.simulate.interpolation import dense_flow
from vrtspike.spikes.gray import gray_on_grid
from vrtspike.training.flow_loss import end_point_error
from vrtspike.video.inspect import iter_frames

SPLIT = "held_out"
DISTANCES = (1, 3, 6)
"""Frames from the first to the second one of a pair of a video."""

Pair = UInt8[np.ndarray, "2 3 h w"]
Flow = Float[np.ndarray, "2 h w"]
Find = Callable[[Pair], Flow]


@dataclass(frozen=True)
class FlowFigures:
    """What one way to find motion came to on one kind of pairs."""

    pairs: str
    """Which pairs: the kind of a scene's (`sharp`, `guess` ...), or `n apart` of a video."""
    method: str
    error: float
    """Pixels (end points), or gray levels of 255 (video)."""
    unit: str
    seconds: float
    """Of a pair."""
    count: int


@dataclass(frozen=True)
class FlowReport:
    """All that was found."""

    figures: tuple[FlowFigures, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"figures": [asdict(figure) for figure in self.figures]}


def methods(network: FlowNetwork) -> dict[str, Find]:
    """Return the ways to find motion by name."""

    def still(pair: Pair) -> Flow:
        return np.zeros((2, *pair.shape[-2:]), np.float32)

    def ours(pair: Pair) -> Flow:
        with torch.inference_mode():
            flow = network(torch.from_numpy(pair)[None].float() / 255)[0][0]
        return np.asarray(flow.numpy())

    return {
        "no motion": still,
        "TV-L1": _tv_l1,
        "DIS": _dis,
        "network": ours,
    }


def _tv_l1(pair: Pair) -> Flow:
    first, second = (gray_on_grid(frame, *frame.shape[:2]) for frame in _images(pair))
    rows, columns = optical_flow_tvl1(first, second)  # type: ignore[no-untyped-call]
    return np.stack([columns, rows]).astype(np.float32)


def _dis(pair: Pair) -> Flow:
    return rearrange(dense_flow(*_images(pair)), "h w xy -> xy h w")


def _images(pair: Pair) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
    first, second = rearrange(pair, "two c h w -> two h w c")
    return first, second


def mean_error(true: Flow, found: Flow) -> float:
    """Return the mean distance of found and true end points, in pixels."""
    error = end_point_error(torch.from_numpy(found[None]), torch.from_numpy(true[None]))
    return float(error.mean())


def photometric_error(pair: Pair, flow: Flow) -> float:
    """Return how much the first frame and the second one warped to it differ, of 255."""
    first, second = torch.from_numpy(pair).float()
    warped = flow_warp(second[None], torch.from_numpy(flow)[None], padding="border")[0]
    return float((warped - first).abs().mean())


def measure_flow(
    network: FlowNetwork,
    scenes: SceneSettings,
    *,
    split: str = SPLIT,
    count: int,
    video: Path | None = None,
    video_pairs: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> FlowReport:
    """Measure on `count` scenes of a split, and on `video_pairs` pairs of a video a distance."""
    reader, ways = FlowPairReader(scenes, split, 0, 1), methods(network)
    tally = _Tally(ways)
    of_video = [] if video is None else video_pairs_of(video, video_pairs)
    total = count + len(of_video)
    done = 0
    for index in range(count):
        arrays = reader.whole(index)
        for number, (pair, true) in enumerate(zip(arrays["frames"], arrays["flow"], strict=True)):
            tally.add(KINDS[number // PAIRS], "px", pair, partial(mean_error, true))
        done += 1
        if progress is not None:
            progress(done, total)
    for distance, pair in of_video:
        kind = f"{distance} apart"
        tally.add(kind, "of 255", pair, partial(photometric_error, pair))
        done += 1
        if progress is not None:
            progress(done, total)
    return FlowReport(tally.figures())


class _Tally:
    """Adds up the errors and seconds of each way on each kind of pairs."""

    def __init__(self, ways: Mapping[str, Find]) -> None:
        self._ways = ways
        self._errors: dict[tuple[str, str, str], list[tuple[float, float]]] = {}

    def add(self, kind: str, unit: str, pair: Pair, error: Callable[[Flow], float]) -> None:
        """Find the motion of a pair in all ways."""
        for name, find in self._ways.items():
            begun = time.perf_counter()
            found = find(pair)
            seconds = time.perf_counter() - begun
            self._errors.setdefault((kind, name, unit), []).append((error(found), seconds))

    def figures(self) -> tuple[FlowFigures, ...]:
        """Return the means."""
        figures = []
        for (kind, name, unit), found in self._errors.items():
            error, seconds = np.mean(found, axis=0).tolist()
            figures.append(FlowFigures(kind, name, error, unit, seconds, len(found)))
        return tuple(figures)


def video_pairs_of(video: Path, count: int) -> list[tuple[int, Pair]]:
    """Return `count` pairs of each distance, their first frames spread evenly over a video.

    It is decoded twice, so that no more than these are held.
    """
    frames = sum(1 for _ in iter_frames(video))
    if frames <= max(DISTANCES):
        raise DataFormatError(
            "too few frames for pairs",
            where=video,
            got=f"{frames} frames",
            expected=f"more than {max(DISTANCES)}",
        )
    places = [
        (first, distance)
        for distance in DISTANCES
        for first in np.linspace(0, frames - 1 - distance, count).round().astype(int)
    ]
    wanted = {frame for first, distance in places for frame in (first, first + distance)}
    kept = {
        number: rearrange(frame, "h w c -> c h w")
        for number, frame in enumerate(iter_frames(video))
        if number in wanted
    }
    return [(distance, np.stack([kept[n], kept[n + distance]])) for n, distance in places]
