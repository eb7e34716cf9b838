"""One draw shows the same rectangle, turned the same way, in frames and spikes."""

from __future__ import annotations

import numpy as np
import pytest

from vrtspike.errors import ConfigError
from vrtspike.samples.augment import Augmentation, draw_augmentation


def tagged_sample(grid: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Return frames and spikes whose every value says where (and when) it was.

    A frame pixel is (frame, y, x) of its spike pixel; a "spike" is 1000 * step + 100 * frame
    + 10 * y + x.
    """
    t, s, hs, ws = 3, 6, 8, 9
    frame, y, x = np.mgrid[:t, :hs, :ws]
    frames = np.stack([frame, y, x], axis=-1).repeat(grid, axis=1).repeat(grid, axis=2)
    steps, per_frame, ys, xs = np.mgrid[:s, :t, :hs, :ws]
    spikes = (1000 * steps + 100 * per_frame + 10 * ys + xs).swapaxes(0, 1)
    return frames, spikes


@pytest.mark.parametrize("grid", [1, 2])
def test_frames_and_spikes_stay_aligned(grid: int) -> None:
    frames, spikes = tagged_sample(grid)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(120):
        draw = draw_augmentation(rng, 8 * grid, 9 * grid, 4 * grid, True, grid=grid)
        seen.add((draw.flip_h, draw.flip_v, draw.transpose, draw.reverse_time))
        shown = draw.frames(frames)[:, ::grid, ::grid]
        turned = draw.turned(spikes[(slice(None), slice(None), *draw.on_grid(grid))], row_axis=2)
        if draw.reverse_time:
            turned = turned[::-1, ::-1]
        where = 100 * shown[..., 0] + 10 * shown[..., 1] + shown[..., 2]
        np.testing.assert_array_equal(turned % 1000, np.broadcast_to(where[:, None], turned.shape))
        steps = (turned // 1000)[:, :, 0, 0]
        expected = range(6)[:: -1 if draw.reverse_time else 1]
        np.testing.assert_array_equal(steps, np.broadcast_to(list(expected), (3, 6)))
        order = shown[:, 0, 0, 0].tolist()
        assert order == ([2, 1, 0] if draw.reverse_time else [0, 1, 2])
    assert len(seen) == 16, "every combination of flips occurs"


def test_transposition_follows_the_flips() -> None:
    frames = np.arange(4).reshape(1, 2, 2, 1)
    shown = Augmentation(0, 0, 2, flip_h=True, transpose=True).frames(frames)
    np.testing.assert_array_equal(shown[0, :, :, 0], [[1, 3], [0, 2]])


def test_the_arguments_are_not_changed() -> None:
    frames, _ = tagged_sample(1)
    copy = frames.copy()
    draw = Augmentation(0, 0, 4, True, True, True, True)
    draw.frames(frames)[:] = 0
    np.testing.assert_array_equal(frames, copy)


def test_crops_reach_every_corner_and_start_on_the_grid() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_augmentation(rng, 10, 12, 6, False, grid=2) for _ in range(200)]
    assert {d.top for d in draws} == {0, 2, 4}
    assert {d.left for d in draws} == {0, 2, 4, 6}
    assert not any(d.flip_h or d.flip_v or d.transpose or d.reverse_time for d in draws)


def test_the_settings_do_not_change_what_later_draws_see() -> None:
    rngs = [np.random.default_rng(3) for _ in range(3)]
    draw_augmentation(rngs[0], 64, 64, 64, False)
    draw_augmentation(rngs[1], 64, 80, 16, True, grid=4)
    draw_augmentation(rngs[2], 64, 80, 16, True)
    assert len({rng.random() for rng in rngs}) == 1


def test_impossible_crops_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="larger than the frame"):
        draw_augmentation(rng, 10, 12, 11, True)
    with pytest.raises(ConfigError, match="spike grid"):
        draw_augmentation(rng, 10, 12, 7, True, grid=2)
    with pytest.raises(ConfigError, match="spike grid"):
        Augmentation(1, 0, 4).on_grid(2)
