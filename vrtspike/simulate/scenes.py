"""Rendered scenes: photographs that move along known smooth paths, with parallax.

A scene has a background and objects in front of it, the nearest last. The camera translates, rolls
and zooms. An object follows the motion of the camera, with the translation multiplied by its
nearness, and moves along a path of its own. In: instants in steps (see `vrtspike.spikes.timeline`).
Out: gamma-encoded RGB float32 `(n, h, w, 3)` in [0, 1], and the exact motion of each visible pixel.

A texel of a photograph is smaller than a frame pixel. Photographs are low-passed by a Gaussian of
half a frame pixel (for the lens and the area of a pixel) and sampled bilinearly, so that aliasing
and interpolation cause no flicker. Colours are mixed gamma-encoded, as in the blur of published
datasets.

The length of the blur is the mean length of the paths of a layer's points during an exposure. It is
drawn from `motion` for the camera and for each object, and the paths are scaled to reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from vrtspike.simulate.motion import (
    Array,
    Path,
    apply_affine,
    draw_path,
    invert_affine,
    path_lengths,
)

Photograph = UInt8[np.ndarray, "h w 3"]
Box = tuple[int, int, int, int]
LENS_SIGMA = 0.5
"""Standard deviation of the low-pass before sampling, in frame pixels."""
LEAST_TEXELS, MOST_TEXELS = 1.25, 2.5
"""Texels of a photograph per frame pixel, if the photograph is large enough."""


class Photographs(Protocol):
    """Photographs to choose from; an implementation may read an item only when it is chosen."""

    def __len__(self) -> int:
        """Return the number of photographs."""

    def __getitem__(self, index: int, /) -> Photograph:
        """Return a photograph."""


class Pose(Protocol):
    """The pose of a layer over time: maps from frame pixels to the pixels of the layer."""

    def to_layer(self, instants: Array) -> Array:
        """Return affine maps `(n, 2, 3)`."""


@dataclass(frozen=True)
class CameraPose:
    """The pose of the background; `nearness` multiplies the translation, for nearer layers."""

    path: Path
    nearness: float = 1.0

    def to_layer(self, instants: Array) -> Array:
        """Return affine maps `(n, 2, 3)`."""
        shift = self.nearness * self.path.position(instants)
        return np.concatenate([self.path.turning(instants), shift[..., None]], axis=-1)


@dataclass(frozen=True)
class ObjectPose:
    """The pose of an object: its place and its path in the world, seen from the moving camera."""

    camera: CameraPose
    place: tuple[float, float]
    path: Path

    def to_layer(self, instants: Array) -> Array:
        """Return affine maps `(n, 2, 3)`."""
        world = self.camera.to_layer(instants)
        turning = np.linalg.inv(self.path.turning(instants))
        world[..., 2] -= self.path.position(instants) + np.asarray(self.place)
        return np.asarray(turning @ world)


@dataclass(frozen=True)
class Layer:
    """A texture `(1, c, H, W)` (RGB, or premultiplied RGB and coverage) with its pose.

    `origin` is the position of the layer's origin in texels (x, y; the centre of the first texel is
    at 0.5), `texels` the number of texels per pixel, and `radius` the radius of an object in pixels
    (None for the background).
    """

    texture: Tensor
    origin: tuple[float, float]
    texels: float
    pose: Pose
    radius: float | None = None

    def sample(self, instants: Array, box: Box, centre: Array) -> Tensor:
        """Render the part `box` (y0, y1, x0, x1) of the frame, `(n, c, h, w)`."""
        y0, y1, x0, x1 = box
        size = np.array([self.texture.shape[-1], self.texture.shape[-2]], np.float64)
        maps = self.pose.to_layer(instants) * (self.texels * 2.0 / size)[:, None]
        maps[..., 2] += np.asarray(self.origin) * 2.0 / size - 1.0
        m = torch.from_numpy(maps.astype(np.float32))[:, :, :, None, None]
        x = torch.arange(x0, x1, dtype=torch.float32) + (0.5 - float(centre[0]))
        y = (torch.arange(y0, y1, dtype=torch.float32) + (0.5 - float(centre[1])))[:, None]
        grid = torch.empty(len(instants), y1 - y0, x1 - x0, 2)
        for i in (0, 1):
            torch.add(m[:, i, 0] * x + m[:, i, 2], m[:, i, 1] * y, out=grid[..., i])
        return F.grid_sample(
            self.texture.expand(len(instants), -1, -1, -1),
            grid,
            padding_mode="reflection" if self.radius is None else "zeros",
            align_corners=False,
        )

    def box(self, instants: Array, height: int, width: int, centre: Array) -> Box:
        """Return the part of the frame (y0, y1, x0, x1) that the layer can cover."""
        if self.radius is None:
            return 0, height, 0, width
        to_frame = invert_affine(self.pose.to_layer(instants))
        middle = to_frame[..., 2] + centre
        reach = self.radius * np.linalg.norm(to_frame[..., :2], ord=2, axis=(-2, -1))[:, None]
        low, high = (middle - reach).min(axis=0), (middle + reach).max(axis=0)
        x0, y0 = np.floor(low).clip(0, (width, height)).astype(int)
        x1, y1 = np.ceil(high).clip(0, (width, height)).astype(int)
        return int(y0), int(y1), int(x0), int(x1)


class Scene:
    """A random scene, which can be rendered at any instant of `[0, frames * steps_per_frame]`."""

    def __init__(
        self,
        rng: np.random.Generator,
        background: Photograph,
        textures: Photographs,
        *,
        height: int,
        width: int,
        frames: int,
        steps_per_frame: int,
        exposure_steps: int,
        motion: tuple[float, float],
        objects: tuple[int, int],
    ) -> None:
        self.height, self.width = height, width
        self.centre = np.array([width / 2, height / 2])
        draw = _Draw(rng, height, width, frames, steps_per_frame, exposure_steps, motion)
        camera = draw.camera()
        self.layers = [draw.background(background, camera)]
        for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
            texture = textures[int(rng.integers(len(textures)))]
            self.layers.append(draw.object(texture, camera))

    def render(self, instants: Sequence[float] | Array) -> Float[np.ndarray, "n h w 3"]:
        """Render the scene at the given instants."""
        times = np.asarray(instants, np.float64)
        with torch.inference_mode():
            view = (0, self.height, 0, self.width)
            image = self.layers[0].sample(times, view, self.centre)
            for layer in self.layers[1:]:
                y0, y1, x0, x1 = layer.box(times, self.height, self.width, self.centre)
                if y0 < y1 and x0 < x1:
                    patch = layer.sample(times, (y0, y1, x0, x1), self.centre)
                    part = image[:, :, y0:y1, x0:x1]
                    part.mul_(1.0 - patch[:, 3:]).add_(patch[:, :3])
            return np.asarray(image.clamp_(0.0, 1.0).movedim(1, -1).numpy())

    def flow(self, start: float, stop: float) -> Float[np.ndarray, "h w 2"]:
        """Return the motion of the point visible at each pixel, from `start` to `stop`.

        It is (x, y) in pixels. The visible layer is the nearest one that covers more than half of
        the pixel at `start`.
        """
        y, x = np.mgrid[: self.height, : self.width] + 0.5
        points = np.stack([x, y], axis=-1) - self.centre
        flow = np.zeros((self.height, self.width, 2))
        for layer in self.layers:
            first, last = layer.pose.to_layer(np.array([start, stop]))
            moved = apply_affine(invert_affine(last), apply_affine(first, points)) - points
            if layer.radius is None:
                flow[:] = moved
            else:
                view = (0, self.height, 0, self.width)
                covered = layer.sample(np.array([start]), view, self.centre)[0, 3].numpy() > 0.5
                flow[covered] = moved[covered]
        return flow.astype(np.float32)


@dataclass(frozen=True)
class _Draw:
    """Draws the camera path and the layers of a scene."""

    rng: np.random.Generator
    height: int
    width: int
    frames: int
    steps_per_frame: int
    exposure_steps: int
    motion: tuple[float, float]

    @property
    def duration(self) -> float:
        """Return the length of the scene in steps."""
        return float(self.frames * self.steps_per_frame)

    def blur_length(self, pose: Pose, points: Array) -> float:
        """Return the mean path length of points of a layer during an exposure, in pixels."""
        within = np.linspace(0.0, self.exposure_steps, 9)
        starts = self.steps_per_frame * np.arange(self.frames)
        # One call for all frames, because drawing a scene needs hundreds of these lengths.
        maps = pose.to_layer((starts[:, None] + within).ravel())
        return float(np.mean(path_lengths(maps.reshape(self.frames, len(within), 2, 3), points)))

    def view_points(self) -> Array:
        """Return a grid of 5 x 5 points over the frame, in pixels from its centre."""
        x = np.linspace(-0.45, 0.45, 5)
        return np.stack(np.meshgrid(x * self.width, x * self.height), axis=-1).reshape(-1, 2)

    def camera(self) -> Path:
        """Draw the path of the camera, scaled to blur the background by a length from `motion`."""
        goal = self.rng.uniform(*self.motion)
        path = draw_path(self.rng, self.duration, goal / self.exposure_steps)
        for _ in range(3):
            length = self.blur_length(CameraPose(path), self.view_points())
            path = replace(path, scale=path.scale * goal / length)
        return path

    def background(self, photograph: Photograph, camera: Path) -> Layer:
        """Place the photograph so that the camera sees as little as possible of mirrored edges."""
        high, wide = photograph.shape[:2]
        positions = camera.position(np.linspace(0.0, self.duration, 65))
        low, top = positions.min(axis=0), positions.max(axis=0)
        needed = top - low + 1.15 * np.array([self.width, self.height])
        max_texels = float(np.min(np.array([wide, high]) / needed))
        texels = min(max_texels, self.rng.uniform(LEAST_TEXELS, MOST_TEXELS))
        slack = np.maximum(np.array([wide, high]) - needed * texels, 0.0)
        corner = self.rng.uniform(0.0, 1.0, 2) * slack
        origin = corner + texels * (0.5 * needed - 0.5 * (low + top))
        pose = CameraPose(camera)
        return Layer(
            low_passed(self.texture(photograph), LENS_SIGMA * texels),
            (float(origin[0]), float(origin[1])),
            texels,
            pose,
        )

    def object(self, photograph: Photograph, camera: Path) -> Layer:
        """Draw a soft-edged object with the texture of a photograph and its own path."""
        rng, goal = self.rng, self.rng.uniform(*self.motion)
        radius = rng.uniform(0.12, 0.28) * min(self.height, self.width)
        nearness = rng.uniform(1.0, max(1.0, min(1.6, self.motion[1] / self._length_of(camera))))
        place = rng.uniform(-0.4, 0.4, 2) * (self.width, self.height)
        pose = ObjectPose(
            CameraPose(camera, nearness),
            (float(place[0]), float(place[1])),
            draw_path(rng, self.duration, goal / self.exposure_steps),
        )
        points = radius * np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float64)
        candidates = [
            replace(pose, path=replace(pose.path, scale=scale)) for scale in np.linspace(0, 2.5, 41)
        ]
        pose = min(candidates, key=lambda t: abs(self.blur_length(t, points) - goal))
        texture, texels = self.cut_out(photograph, radius)
        side = texture.shape[-1]
        return Layer(texture, (side / 2, side / 2), texels, pose, radius=side / texels / 2)

    def _length_of(self, camera: Path) -> float:
        """Return the blur length of the background, in pixels."""
        return self.blur_length(CameraPose(camera), self.view_points())

    def cut_out(self, photograph: Photograph, radius: float) -> tuple[Tensor, float]:
        """Cut a blob of about `radius` pixels out of a photograph.

        Return premultiplied RGBA, and the number of texels per pixel.
        """
        rng = self.rng
        reach = 1.45 * radius + 3.0
        texels = min(rng.uniform(LEAST_TEXELS, MOST_TEXELS), min(photograph.shape[:2]) / 2 / reach)
        side = min(2 * int(np.ceil(reach * texels)), *photograph.shape[:2])
        y0, x0 = (int(rng.integers(extent - side + 1)) for extent in photograph.shape[:2])
        crop = self.texture(photograph[y0 : y0 + side, x0 : x0 + side])
        axis = (np.arange(side) + 0.5 - side / 2) / texels
        angle, distance = np.arctan2(axis[:, None], axis), np.hypot(axis[:, None], axis)
        border = np.full_like(angle, radius)
        for k in (2, 3, 4):
            bulge, phase = rng.uniform(0.0, 0.3 / k), rng.uniform(0, 2 * np.pi)
            border += radius * bulge * np.cos(k * angle + phase)
        cover = np.clip(border - distance + 0.5, 0.0, 1.0).astype(np.float32)
        coverage = torch.from_numpy(cover)[None, None]
        premultiplied = torch.cat([crop * coverage, coverage], dim=1)
        return low_passed(premultiplied, LENS_SIGMA * texels), texels

    def texture(self, photograph: Photograph) -> Tensor:
        """Return a photograph in [0, 1] as `(1, 3, h, w)`, with random mirroring and brightness."""
        rng = self.rng
        if rng.random() < 0.5:
            photograph = photograph[:, ::-1]
        gain = rng.uniform(0.75, 1.1) * rng.uniform(0.93, 1.07, 3)
        toned = np.clip(photograph * (gain / 255.0).astype(np.float32), 0.0, 1.0)
        return torch.from_numpy(toned).movedim(-1, 0)[None]


def low_passed(texture: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian of `sigma` texels; the result is channels-last, for fast sampling."""
    # Not `contiguous`, which keeps the strides of a view of a single image. With the strides of a
    # copy, the convolutions use the channels-last layout and take a tenth of the time.
    texture = torch.empty_like(texture, memory_format=torch.channels_last).copy_(texture)
    reach = int(np.ceil(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).to(texture.dtype)
    channels = texture.shape[1]
    padded = F.pad(texture, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, taps.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    both = F.conv2d(rows, taps.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return both.contiguous(memory_format=torch.channels_last)
