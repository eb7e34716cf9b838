"""Pairs of frames: their motion is exact at every scale, and they are functions of their draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vrtspike.config.scenes import SceneSettings
from vrtspike.model.warp import flow_warp
from vrtspike.samples.order import Draw
from vrtspike.simulate import flow_pairs
from vrtspike.simulate.degradation import KINDS
from vrtspike.simulate.flow_pairs import (
    PAIRS,
    PHASES,
    Arrays,
    FlowPairReader,
    reduced,
    scale_at,
    side_at,
)

SCENES = SceneSettings(frames=3, height=48, width=64, motion=(4.0, 12.0), objects=(1, 1))


def reader(split: str = "train", seed: int = 0) -> FlowPairReader:
    return FlowPairReader(SCENES.model_copy(update={"seed": seed}), split, 0, steps=100)


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all pairs seen sharp."""
    monkeypatch.setattr(flow_pairs, "draw_kind", lambda _: "sharp")


def misses(arrays: Arrays) -> NDArray[np.float32]:
    """Return how much the first frames and the second ones, warped to them, differ in the median of
    the pixels that stay in the picture, over how much they do without warping."""
    first, second = torch.from_numpy(np.ascontiguousarray(arrays["frames"])).float().unbind(1)
    flow = torch.from_numpy(np.ascontiguousarray(arrays["flow"]))
    seen = flow_warp(torch.ones_like(second), flow)[:, 0] > 0.999
    off = (flow_warp(second, flow, padding="border") - first).abs().mean(dim=1)
    still = (second - first).abs().mean(dim=1)
    shares = [off[i][seen[i]].median() / still[i][seen[i]].median() for i in range(len(flow))]
    return np.array([float(share) for share in shares], np.float32)


def test_the_second_frame_warped_by_the_motion_is_the_first() -> None:
    pairs = {name: array[:PAIRS] for name, array in reader().whole(0).items()}
    assert pairs["frames"].dtype == np.uint8 and pairs["frames"].shape == (PAIRS, 2, 3, 48, 64)
    assert pairs["flow"].dtype == np.float32 and pairs["flow"].shape == (PAIRS, 2, 48, 64)
    assert misses(pairs).max() < 0.4 and np.median(misses(pairs)) < 0.25, "the sharp ones"
    for wrong in (-pairs["flow"], pairs["flow"][:, ::-1]):
        assert np.median(misses(pairs | {"flow": wrong})) > 0.7


def test_coarse_pairs_move_by_coarse_pixels() -> None:
    pairs = {name: array[:PAIRS] for name, array in reader().whole(0).items()}
    coarse = reduced(pairs, 2)
    assert coarse["frames"].shape[-2:] == (24, 32)
    np.testing.assert_allclose(
        coarse["flow"][0, :, 3, 4], pairs["flow"][0, :, 6:8, 8:10].mean(axis=(1, 2)) / 2, rtol=1e-5
    )
    assert np.median(misses(coarse)) < 0.4 < np.median(misses(coarse | {"flow": -coarse["flow"]}))
    assert reduced(pairs, 1) is pairs


def test_a_pair_is_a_function_of_its_draw() -> None:
    draw = Draw(0, 3, 99)
    first = reader().training([draw])
    alone, other = reader().training([draw, Draw(1, 3, 99)]), reader(seed=1).training([draw])
    for name, array in first.items():
        np.testing.assert_array_equal(array, alone[name][: len(array)])
    frames = [
        first,
        other,
        {k: v[2 * PAIRS :] for k, v in alone.items()},
        reader("val").training([draw]),
    ]
    assert not any(np.array_equal(frames[0]["frames"], found["frames"]) for found in frames[1:])


def test_training_goes_from_coarse_to_fine() -> None:
    shares = [0.0, *(begin + off for begin, _ in PHASES[1:] for off in (-0.01, 0.0)), 1.0]
    assert [scale_at(share) for share in shares] == [8, 8, 4, 4, 2, 2, 1, 1]
    coarse, fine = (reader().training([Draw(0, 0, step)]) for step in (0, 99))
    assert set(coarse["scale"]) == {8} and set(fine["scale"]) == {1}
    assert coarse["flow"].shape == (2 * PAIRS, 2, 6, 8)
    for name, units in (("frames", 1), ("flow", 8)):
        blocks = fine[name].astype(np.float32).reshape(*fine[name].shape[:-2], 6, 8, 8, 8)
        means = blocks.mean(axis=(-3, -1)) / units
        np.testing.assert_allclose(coarse[name], means, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("sharp")
def test_every_third_step_sees_parts_of_larger_frames_that_move_as_coarse_pairs_do() -> None:
    """Of the coarse levels' own pixels they move as many, on a larger and changing grid."""
    assert [side_at(step) for step in range(9)] == [None, None, 64, None, None, 96, None, None, 128]
    last = 99  # the finest scale is the whole frame's
    assert side_at(98) is not None and reader().training([Draw(0, 0, 98)])["flow"].shape[-1] == 64
    lengths = []
    for step in (0, 2, last):
        arrays = [reader().training([Draw(0, index, step)]) for index in range(6)]
        assert {int(scale) for one in arrays for scale in one["scale"]} == {
            1 if step == last else 8
        }
        flow = np.concatenate([one["flow"] for one in arrays])
        lengths.append(np.hypot(*flow.swapaxes(0, 1)).mean())
        if step == 2:
            assert flow.shape[-2:] == (48, 64)  # a square of 64, as far as there is one
            assert np.median([np.median(misses(one)) for one in arrays]) < 0.6
    reduced_by_8, slower, fast = lengths
    assert slower == pytest.approx(reduced_by_8, rel=0.3) and fast > 6 * slower


@pytest.mark.usefixtures("sharp")
def test_pairs_to_train_on_are_there_forwards_and_backwards() -> None:
    arrays = reader().training([Draw(0, 0, 99)])
    there, back = ({name: array[way::2] for name, array in arrays.items()} for way in (0, 1))
    np.testing.assert_array_equal(there["frames"], back["frames"][:, ::-1])
    assert np.median(misses(there)) < 0.3 and np.median(misses(back)) < 0.3


def test_pairs_to_validate_on_are_seen_in_every_way() -> None:
    arrays = reader().whole(1)
    flows, frames = arrays["flow"], arrays["frames"].astype(np.float32)
    assert len(flows) == len(KINDS) * PAIRS
    seen = dict(zip(KINDS, np.split(frames, len(KINDS)), strict=True))
    for kind in range(1, len(KINDS)):
        np.testing.assert_array_equal(flows[:PAIRS], flows[kind * PAIRS : (kind + 1) * PAIRS])
    detail = {k: np.abs(np.diff(f, axis=-1)).mean(axis=(1, 2, 3, 4)) for k, f in seen.items()}
    assert (detail["blurred"] < detail["sharp"]).all()
    off = {k: np.abs(f - seen["sharp"]).mean() for k, f in seen.items()}
    assert 0 < off["guess"] < min(10, off["spikes"]) and off["blurred"] > 0
    assert np.ptp(seen["spikes"], axis=2).max() == 0, "gray"


def test_some_motion_is_small_and_none_beyond_a_frame_interval() -> None:
    flows = np.concatenate([reader().whole(index)["flow"][:PAIRS] for index in range(4)])
    lengths = np.hypot(*flows.swapaxes(0, 1)).mean(axis=(1, 2))
    assert lengths.min() < 3 and lengths.max() > 8


def test_splits_share_no_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    load, seen = flow_pairs.load_photograph, set()

    def noted(name: str) -> NDArray[np.uint8]:
        seen.add(name)
        return load(name)

    monkeypatch.setattr(flow_pairs, "load_photograph", noted)
    used = []
    for split in ("train", "val", "held_out"):
        seen.clear()
        reader(split).training([Draw(0, 0)])
        used.append(set(seen))
    assert all(used) and len(set.union(*used)) == sum(map(len, used))
