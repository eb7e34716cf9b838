"""Rendered scenes: exact instants, exact motion, blur of the length that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vrtspike.config.scenes import SceneSettings
from vrtspike.simulate.motion import apply_affine, draw_path, invert_affine
from vrtspike.simulate.photographs import HELD_OUT, TRAIN, VALIDATION, load_photograph
from vrtspike.simulate.recording import SceneTask, build_scene
from vrtspike.simulate.scenes import LENS_SIGMA, Layer, Scene, low_passed

SETTINGS = SceneSettings(frames=4, height=64, width=80, objects=(2, 2))


def scene(seed: int, settings: SceneSettings = SETTINGS, split: str = "train") -> Scene:
    """Draw a scene."""
    return build_scene(SceneTask(split, seed), settings)[0]


def test_photographs_of_the_splits_are_disjoint_and_load() -> None:
    sets = [set(s.backgrounds + s.textures) for s in (TRAIN, VALIDATION, HELD_OUT)]
    assert len(set.union(*sets)) == sum(map(len, sets))
    stereo = [any("motorcycle" in name for name in names) for names in sets]
    assert sum(stereo) == 1, "both views of the stereo pair are one scene, and belong to one split"
    for name in sorted(set.union(*sets)):
        photograph = load_photograph(name)
        assert photograph.dtype == np.uint8
        assert min(photograph.shape[:2]) >= 100


def test_an_instant_does_not_depend_on_those_rendered_with_it() -> None:
    view = scene(0)
    times = np.linspace(0, 256, 9)
    together = view.render(times)
    assert together.shape == (9, 64, 80, 3)
    assert together.dtype == np.float32
    assert 0.0 <= together.min() < together.max() <= 1.0
    for i in (0, 4, 8):
        np.testing.assert_allclose(view.render(times[i : i + 1])[0], together[i], atol=1e-5)


def test_a_scene_is_a_function_of_its_seed() -> None:
    np.testing.assert_array_equal(scene(0).render([10.0]), scene(0).render([10.0]))
    others = [scene(1), scene(0, SETTINGS.model_copy(update={"seed": 1})), scene(0, split="test")]
    first = scene(0).render([10.0])
    assert not any(np.array_equal(first, other.render([10.0])) for other in others)


def test_motion_is_smooth_no_step_stands_out() -> None:
    """Consecutive instants differ by a small, steady amount: no jumps and no flicker."""
    frames = scene(2).render(np.arange(60, 90) + 0.5)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert change.max() < 1.3 * change.min()
    second = np.abs(np.diff(frames, n=2, axis=0)).mean(axis=(1, 2, 3))
    assert second.max() < 0.6 * change.min(), "changes go on; independent flicker gives 1.7"


class Slide:
    """A pose that moves by as many pixels as the instant says."""

    def to_layer(self, instants: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return affine maps `(n, 2, 3)`."""
        return np.array([[[1, 0, x], [0, 1, 0.3 * x]] for x in instants])


def test_texels_lie_on_pixels_where_the_pose_says_so() -> None:
    texture = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    layer, centre = Layer(texture, (15.0, 10.0), 1.0, Slide()), np.array([15.0, 10.0])
    whole = layer.sample(np.array([0.0, 10.0]), (0, 20, 0, 30), centre)
    torch.testing.assert_close(whole[0], texture[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[1, :, :17, :20], texture[0, :, 3:, 10:], atol=1e-5, rtol=0)
    part = layer.sample(np.array([10.0]), (3, 9, 5, 12), centre)
    torch.testing.assert_close(part[0], whole[1, :, 3:9, 5:12], atol=1e-5, rtol=0)


def test_objects_hide_what_is_behind_them() -> None:
    plain = [np.full((200, 200, 3), value, np.uint8) for value in (80, 160)]
    view = Scene(
        np.random.default_rng(0),
        *(plain[0], plain[1:]),
        **SETTINGS.model_dump(
            include={"height", "width", "frames", "steps_per_frame", "exposure_steps", "motion"}
        ),
        objects=(1, 1),
    )
    behind, before = (layer.texture[0, :3].amax(dim=(1, 2)).numpy() for layer in view.layers)
    image = view.render([128.0])[0]
    assert np.abs(image - before).sum(axis=-1).min() < 1e-4, "opaque inside"
    assert np.abs(image - behind).sum(axis=-1).min() < 1e-4, "nothing outside"
    share = (image - behind) / (before - behind)
    np.testing.assert_allclose(share, share[..., :1].repeat(3, axis=-1), atol=1e-3)
    assert -1e-4 <= share.min() < share.max() <= 1 + 1e-4, "a mixture at the edge"


@pytest.mark.parametrize("texels", [1.25, 1.5, 2.5])
@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png"])
def test_sampling_between_texels_does_not_flicker(name: str, texels: float) -> None:
    """Contrast is the same at every phase of the sampling; it varies by 4 to 8% unfiltered."""
    photograph = torch.from_numpy(load_photograph(name) / np.float32(255)).movedim(-1, 0)[None]
    middle = (photograph.shape[-1] / 2, photograph.shape[-2] / 2)
    layer = Layer(low_passed(photograph, LENS_SIGMA * texels), middle, texels, Slide())
    frames = layer.sample(np.linspace(0, 2, 17), (0, 100, 0, 100), np.array([50.0, 50.0])).numpy()
    energy = np.square(np.diff(frames, axis=3)).mean(axis=(1, 2, 3))
    trend = np.polyval(np.polyfit(np.arange(17), energy, 2), np.arange(17))
    assert np.abs(energy / trend - 1).max() < 0.03


@pytest.mark.parametrize("seed", range(4))
def test_flow_is_where_the_pixels_went(seed: int) -> None:
    view = scene(seed)
    start, stop = 100.0, 116.0
    flow = torch.from_numpy(view.flow(start, stop))
    first, second = (torch.from_numpy(view.render([t])).movedim(-1, 1) for t in (start, stop))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    at = torch.stack([x, y], dim=-1) + flow
    inside = ((at >= 1) & (at <= torch.tensor([78.0, 62.0]))).all(dim=-1)
    grid = (2 * at + 1) / torch.tensor([80.0, 64.0]) - 1
    warped = F.grid_sample(second, grid[None], align_corners=False)
    error = (warped - first).abs().mean(dim=1)[0]
    still = (second - first).abs().mean(dim=1)[0]
    assert float(error[inside].median()) < 0.01
    assert float(error[inside].mean()) < 0.35 * float(still[inside].mean()), "occlusions aside"


@pytest.mark.parametrize("motion", [(5.0, 20.0), (8.0, 8.0)])
def test_every_layer_blurs_by_the_length_that_was_asked_for(motion: tuple[float, float]) -> None:
    settings = SETTINGS.model_copy(update={"motion": motion})
    lengths = []
    for seed in range(6):
        view = scene(seed, settings)
        background = Scene.__new__(Scene)
        background.__dict__.update(view.__dict__ | {"layers": view.layers[:1]})
        paths = [
            np.sum(
                [
                    np.linalg.norm(background.flow(f * 64 + a, f * 64 + a + 7), axis=-1)
                    for a in range(0, 56, 7)
                ],
                axis=0,
            ).mean()
            for f in range(4)
        ]
        lengths.append(float(np.mean(paths)))
    assert min(lengths) > 0.93 * motion[0]
    assert max(lengths) < 1.07 * motion[1]


def test_objects_move_against_the_background_and_are_seen() -> None:
    seen = 0
    for seed in range(4):
        view = scene(seed)
        flow = view.flow(120, 121)
        background = scene(seed, SETTINGS.model_copy(update={"objects": (0, 0)})).flow(120, 121)
        differs = np.linalg.norm(flow - background, axis=-1) > 1e-6
        seen += 0.02 < differs.mean() < 0.9
    assert seen >= 3


def test_paths_start_from_their_place_and_maps_invert() -> None:
    path = draw_path(np.random.default_rng(0), 512.0, 0.2)
    np.testing.assert_allclose(path.position(np.array([256.0])), 0.0, atol=1e-12)
    np.testing.assert_allclose(path.turning(np.array([256.0]))[0], np.eye(2), atol=1e-12)
    times = np.array([3.0, 400.0])
    maps = np.concatenate([path.turning(times), path.position(times)[..., None]], axis=-1)
    points = np.random.default_rng(1).random((5, 2))
    back = [
        apply_affine(inverse, apply_affine(one, points))
        for inverse, one in zip(invert_affine(maps), maps, strict=True)
    ]
    np.testing.assert_allclose(back, [points, points], atol=1e-12)
    np.testing.assert_allclose(apply_affine(maps, points)[1], apply_affine(maps[1], points))
