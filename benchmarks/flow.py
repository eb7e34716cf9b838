"""How good found motion is: on rendered scenes, whose motion is exact, and on real video.

    python benchmarks/flow.py --config configs/flow.yaml --weights flow

- Scenes of the split `held_out`, whose photographs nothing was trained on, in each way that the
  network sees frames (`vrtspike.simulate.degradation`): the end-point error, the mean distance of
  found and true end points, in pixels.
- Real frames, whose motion nobody knows: the photometric error, the mean absolute difference, in
  gray levels of 255, of the first frame and of the second one warped by the flow.

The classical ways are on gray: TV-L1 (Zach et al. 2007) of scikit-image, and DIS (Kroeger et al.
2016) of OpenCV, by which videos are interpolated. A flow says where each pixel of the first frame
is in the second one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from skimage.registration import optical_flow_tvl1

from figures import Row, show
from vrtspike.config.loader import load_config
from vrtspike.config.scenes import SceneSettings
from vrtspike.errors import DataFormatError
from vrtspike.model.flow_network import FlowNetwork, read_flow_network
from vrtspike.model.warp import flow_warp
from vrtspike.restoration.restorer import weights_file
from vrtspike.simulate.degradation import KINDS
from vrtspike.simulate.flow_pairs import PAIRS, FlowPairReader
from vrtspike.simulate.interpolation import dense_flow
from vrtspike.spikes.gray import gray_on_grid
from vrtspike.training.flow_loss import end_point_error
from vrtspike.video.inspect import iter_frames
from vrtspike.weights import packaged

DISTANCES = (1, 3, 6)
"""Frames from the first to the second one of a pair of a video."""

Pair = UInt8[np.ndarray, "2 3 h w"]
Flow = Float[np.ndarray, "2 h w"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a flow network beside classical ways.")
    parser.add_argument("--config", required=True, help="configuration (YAML) with scenes")
    parser.add_argument("overrides", nargs="*", help="settings such as scenes.height=64")
    parser.add_argument("--weights", default="flow", help="a packaged name, a run, or a file")
    parser.add_argument("--video", type=Path, help="video, or folder of frames, to measure on too")
    parser.add_argument("--scenes", type=int, default=8, help="held-out scenes")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of the video, a distance")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_intermixed_args()
    scenes = load_config(given.config, given.overrides).scenes or SceneSettings()
    network = read_flow_network(packaged(given.weights) or weights_file(Path(given.weights)))
    measure = {"held-out scenes": scene_rows(network, scenes, given.scenes)}
    if given.video is not None:
        measure[str(given.video)] = video_rows(network, given.video, given.pairs)
    show(measure, given.json)


def scene_rows(network: FlowNetwork, scenes: SceneSettings, count: int) -> list[Row]:
    """Measure on all pairs of some scenes."""
    reader = FlowPairReader(scenes, "held_out", 0, 1)
    found: list[Row] = []
    for index in range(count):
        arrays = reader.whole(index)
        for number, (pair, true) in enumerate(zip(arrays["frames"], arrays["flow"], strict=True)):
            found += in_all_ways(
                network, KINDS[number // PAIRS], "px", pair, partial(mean_error, true)
            )
    return means(found)


def video_rows(network: FlowNetwork, video: Path, count: int) -> list[Row]:
    """Measure on pairs of a video."""
    found: list[Row] = []
    for distance, pair in pairs_of(video, count):
        error = partial(photometric_error, pair)
        found += in_all_ways(network, f"{distance} apart", "of 255", pair, error)
    return means(found)


def in_all_ways(
    network: FlowNetwork, pairs: str, unit: str, pair: Pair, error: Callable[[Flow], float]
) -> list[Row]:
    """Find the motion of a pair in all ways."""
    first, second = rearrange(pair, "two c h w -> two h w c")

    def tv_l1() -> Flow:
        grays = (gray_on_grid(frame, *frame.shape[:2]) for frame in (first, second))
        rows, columns = optical_flow_tvl1(*grays)  # type: ignore[no-untyped-call]
        return np.stack([columns, rows]).astype(np.float32)

    def ours() -> Flow:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(pair)[None].float() / 255)[0][0].numpy())

    ways: dict[str, Callable[[], Flow]] = {
        "no motion": lambda: np.zeros((2, *pair.shape[-2:]), np.float32),
        "TV-L1": tv_l1,
        "DIS": lambda: rearrange(dense_flow(first, second), "h w xy -> xy h w"),
        "network": ours,
    }
    rows: list[Row] = []
    for name, find in ways.items():
        begun = time.process_time()
        flow = find()
        took = time.process_time() - begun
        rows.append(
            {"pairs": pairs, "method": name, "error": error(flow), "in": unit, "CPU s": took}
        )
    return rows


def means(found: list[Row]) -> list[Row]:
    """Average the errors and seconds of each way on each kind of pairs."""
    together: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        together.setdefault((row["pairs"], row["method"], row["in"]), []).append(row)
    return [
        {
            "pairs": pairs,
            "number": len(rows),
            "method": method,
            "error": float(np.mean([row["error"] for row in rows])),
            "in": unit,
            "CPU s": float(np.mean([row["CPU s"] for row in rows])),
        }
        for (pairs, method, unit), rows in together.items()
    ]


def mean_error(true: Flow, found: Flow) -> float:
    """Return the mean distance of found and true end points, in pixels."""
    error = end_point_error(torch.from_numpy(found[None]), torch.from_numpy(true[None]))
    return float(error.mean())


def photometric_error(pair: Pair, flow: Flow) -> float:
    """Return how much the first frame and the second one warped to it differ, of 255."""
    first, second = torch.from_numpy(pair).float()
    warped = flow_warp(second[None], torch.from_numpy(flow)[None], padding="border")[0]
    return float((warped - first).abs().mean())


def pairs_of(video: Path, count: int) -> list[tuple[int, Pair]]:
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


if __name__ == "__main__":
    main()
