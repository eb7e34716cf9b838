"""Pairs of frames with optical flow, to train the flow network: from rendered scenes and videos.

Out: `frames` `(n, 2, 3, h, w)` in 0 to 255 and `flow` float32 `(n, 2, h, w)`: the displacement of
each pixel of the first frame to the second, x before y, in pixels; NaN where it is not known. The
flow of scenes is exact. For training there is also `scale` `(n)`, how many times the pairs are
reduced or slower (see `SIDES`). No pair is stored: the pairs of a draw (epoch, index, step) depend
only on it, the split and the settings. Each epoch draws new scenes from the same photographs, and
new parts of the same videos.

The two instants of a scene's pair are at most a frame interval apart, so that some motion is small.
The kind of images is drawn (`vrtspike.simulate.degradation`); a mean over an exposure is over
`EXPOSED` instants. One scene, or one part of a video, gives `PAIRS` pairs, because drawing it takes
as long as rendering dozens of frames. `vrtspike.simulate.video_pairs` makes the pairs of videos.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from einops import rearrange, reduce
from jaxtyping import Float
from numpy.typing import NDArray

from vrtspike.config.scenes import SceneSettings
from vrtspike.samples.order import Draw
from vrtspike.simulate.degradation import KINDS, Kind, Light, degraded, draw_kind
from vrtspike.simulate.photographs import Name, load_photograph, photographs_of
from vrtspike.simulate.scenes import Photograph, Scene
from vrtspike.simulate.video import VideoSource
from vrtspike.simulate.video_pairs import VideoPairs

PAIRS = 8
"""Pairs of one scene; training uses each pair twice, forwards and backwards in time."""
PHASES = ((0.0, 8), (0.35, 4), (0.65, 2), (0.85, 1))
"""(fraction of the training done, how many times pairs are reduced from there on). The coarse
levels of the flow network learn first, and each finer level refines their flow, as in Ranjan and
Black (CVPR 2017). Training all levels at once on whole frames learned nothing in the same time."""
SIDES = (64, 96, 128)
"""At every third step, pairs are not reduced. They move `scale` times slower instead, and are cut
to squares of these sides in pixels, in turn. So the coarse levels also see parts of large frames,
and not only small frames that are nearly all border. Without this, a network trained on frames of
128 pixels estimated motion of 30 pixels in frames of 256 pixels that move by 5."""
EXPOSED = 8
"""Number of instants over which a blurred frame is averaged."""
SHORTEST, LONGEST = 0.1, 1.5
"""The time between two frames, in frame intervals, is drawn between these and limited to 1, which
a third of the draws reach."""
SIDE = 4
"""Side of the part of a photograph that is cut for a scene, in sides of the frame."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FlowPairReader:
    """Makes the pairs of a split.

    `seed` is the seed of the order of draws, and `steps` the number of training steps. Draws whose
    index is beyond the number of scenes of the split take pairs from `videos`.
    """

    scenes: SceneSettings
    split: str
    seed: int
    steps: int
    videos: tuple[VideoSource, ...] = ()

    def training(self, draws: Iterable[Draw]) -> Arrays:
        """Return the pairs of some draws, with kind, scale and size as drawn for training."""
        return _concatenate([self._pairs_of_draw(draw) for draw in draws])

    def whole(self, index: int) -> Arrays:
        """Render the pairs of one scene at full size, as images of each kind in turn."""
        rng = self._rng(Draw(0, index))
        pairs = _Pairs(self.scenes, draw_scene(rng, self.split, self.scenes), rng)
        instants = [pairs.instants() for _ in range(PAIRS)]
        return _concatenate([pairs.render(*ends, kind) for kind in KINDS for ends in instants])

    def _pairs_of_draw(self, draw: Draw) -> Arrays:
        rng, scale = self._rng(draw), scale_at(draw.step / self.steps)
        side = side_at(draw.step) if scale > 1 else None
        video_index = draw.index - self.scenes.sequences.get(self.split, 0)
        if self.videos and video_index >= 0:
            pairs = self._pairs_of_video(
                self.videos[video_index % len(self.videos)], scale, side, rng
            )
        else:
            pairs = self._pairs_of_scene(scale, side, rng)
        return pairs | {"scale": np.full(len(pairs["flow"]), scale)}

    def _pairs_of_scene(self, scale: int, side: int | None, rng: np.random.Generator) -> Arrays:
        pairs = _Pairs(self.scenes, draw_scene(rng, self.split, self.scenes), rng)
        slower = 1 if side is None else scale
        rendered: list[Arrays] = []
        for _ in range(PAIRS):
            rendered += pairs.both_ways(*pairs.instants(slower), draw_kind(rng), slower)
        joined = _concatenate(rendered)
        return reduced(joined, scale) if side is None else cut(joined, side, rng)

    def _pairs_of_video(
        self, video: VideoSource, scale: int, side: int | None, rng: np.random.Generator
    ) -> Arrays:
        """Cut pairs of the same size out of a video, which is always reduced and never slowed."""
        scenes = self.scenes
        assert scenes.films is not None
        pairs = VideoPairs(video, scenes.films, scenes.exposure_steps / scenes.steps_per_frame, rng)
        height, width = (
            length // scale if side is None else min(side, length)
            for length in (scenes.height, scenes.width)
        )
        drawn = [pair for _ in range(PAIRS) for pair in pairs.draw(height, width, scale)]
        frames, flows = zip(*drawn, strict=True)
        return {"frames": np.stack(frames), "flow": np.stack(flows)}

    def _rng(self, draw: Draw) -> np.random.Generator:
        names = (zlib.crc32(b"flow pairs"), zlib.crc32(self.split.encode()))
        return np.random.default_rng([self.scenes.seed, *names, draw.epoch, draw.index])


def scale_at(share: float) -> int:
    """Return how many times pairs are reduced after this fraction of the training."""
    return [scale for begin, scale in PHASES if share >= begin][-1]


def side_at(step: int) -> int | None:
    """Return the side in pixels of the squares of a step; None if its pairs are reduced."""
    turn, at = divmod(step, 3)
    return SIDES[turn % len(SIDES)] if at == 2 else None


def cut(arrays: Arrays, side: int, rng: np.random.Generator) -> Arrays:
    """Cut the same random square out of all pairs; smaller frames keep their size."""
    height, width = arrays["flow"].shape[-2:]
    top, left = (int(rng.integers(max(0, length - side) + 1)) for length in (height, width))
    return {k: v[..., top : top + side, left : left + side] for k, v in arrays.items()}


def reduced(arrays: Arrays, scale: int) -> Arrays:
    """Average frames and flow over squares of `scale` pixels; the flow is in the new pixels."""
    pattern = "n ... (h a) (w b) -> n ... h w"
    if scale == 1:
        return arrays
    frames, flow = (
        reduce(arrays[name].astype(np.float32), pattern, "mean", a=scale, b=scale)
        for name in ("frames", "flow")
    )
    return {"frames": frames, "flow": flow / np.float32(scale)}


@dataclass(frozen=True)
class _Pairs:
    """Draws and renders pairs of one scene."""

    scenes: SceneSettings
    scene: Scene
    rng: np.random.Generator

    def instants(self, slower: int = 1) -> tuple[float, float]:
        """Draw the instants of two frames whose longest exposures lie inside the scene."""
        scenes, margin = self.scenes, self.scenes.exposure_steps / 2
        interval = scenes.steps_per_frame * min(1.0, self.rng.uniform(SHORTEST, LONGEST)) / slower
        last = scenes.frames * scenes.steps_per_frame - interval - margin
        start = self.rng.uniform(margin, last)
        return start, start + interval

    def render(self, start: float, stop: float, kind: Kind, slower: int = 1) -> Arrays:
        """Render two frames as images of this kind, and their flow."""
        interval = self.scenes.steps_per_frame / slower

        def mean(exposure: float) -> Light:
            ends = (start, stop)
            return np.stack([exposed(self.scene, end, exposure * interval) for end in ends])

        longest = self.scenes.exposure_steps / self.scenes.steps_per_frame
        images = degraded(kind, mean, longest, self.rng)
        return {"frames": images[None], "flow": self._flow(start, stop)}

    def both_ways(
        self, start: float, stop: float, kind: Kind, slower: int
    ) -> tuple[Arrays, Arrays]:
        """Render a pair, and the same pair backwards in time."""
        pair = self.render(start, stop, kind, slower)
        return pair, {"frames": pair["frames"][:, ::-1], "flow": self._flow(stop, start)}

    def _flow(self, start: float, stop: float) -> Float[np.ndarray, "1 2 h w"]:
        return rearrange(self.scene.flow(start, stop), "h w xy -> 1 xy h w")


def exposed(scene: Scene, instant: float, exposure: float) -> Float[np.ndarray, "h w 3"]:
    """Render one frame: the mean light over an exposure around an instant; both are in steps.

    With an exposure of 0 it is the light at the instant.
    """
    within = (np.arange(EXPOSED) + 0.5) / EXPOSED - 0.5 if exposure else np.zeros(1)
    light: Float[np.ndarray, "n h w 3"] = scene.render(instant + exposure * within)
    return np.asarray(light.mean(axis=0))


def draw_scene(rng: np.random.Generator, split: str, scenes: SceneSettings) -> Scene:
    """Draw a scene from parts of a split's photographs, rotated by multiples of 90 degrees.

    We cut parts, because a scene filters whole images.
    """
    photographs = _photographs(split, scenes.photographs)
    side = SIDE * max(scenes.height, scenes.width)
    background = photographs.backgrounds[int(rng.integers(len(photographs.backgrounds)))]
    return Scene(
        rng,
        _part(rng, background, side),
        _Parts(photographs.backgrounds + photographs.textures, side, rng.spawn(1)[0]),
        height=scenes.height,
        width=scenes.width,
        frames=scenes.frames,
        steps_per_frame=scenes.steps_per_frame,
        exposure_steps=scenes.exposure_steps,
        motion=scenes.motion,
        objects=scenes.objects,
    )


# Cached, so that a folder of thousands of files is not listed for every scene.
_photographs = lru_cache(maxsize=8)(photographs_of)


@dataclass(frozen=True)
class _Parts:
    """Parts of photographs for objects; a part is drawn and read when it is used."""

    names: tuple[Name, ...]
    side: int
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Photograph:
        return _part(self.rng, self.names[index], self.side)


def _part(rng: np.random.Generator, name: Name, side: int) -> Photograph:
    photograph = load_photograph(name)
    y, x = (int(rng.integers(max(0, n - side) + 1)) for n in photograph.shape[:2])
    return np.rot90(photograph[y : y + side, x : x + side], int(rng.integers(4)))


def _concatenate(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
