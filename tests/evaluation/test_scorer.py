"""A sequence's scores are those of each frame alone, and what changes in time is compared."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

from vrtspike.evaluation.scorer import SequenceScorer
from vrtspike.metrics.perceptual import LPIPS

FRAMES = 4


@pytest.fixture(scope="module")
def sharp() -> list[NDArray[np.uint8]]:
    """Return a photograph that moves."""
    return [data.astronaut()[40:104, 100 + 3 * t : 180 + 3 * t].copy() for t in range(FRAMES)]


@pytest.fixture(scope="module")
def restored(sharp: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return it with noise that is other in almost every frame."""
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(frame + rng.normal(0, 4 + 6 * t, frame.shape), 0, 255).astype(np.uint8)
        for t, frame in enumerate(sharp)
    ]
    # The last frame stands still, so it changes less than it should, the others more.
    return [*noisy[:-1], noisy[-2]]


def scorer(lpips: LPIPS | None = None) -> SequenceScorer:
    return SequenceScorer(with_luma=True, lpips=lpips, device="cpu")


def test_tlp_is_that_of_the_lpips_package(
    shared: Path, sharp: list[NDArray[np.uint8]], restored: list[NDArray[np.uint8]]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    ours = LPIPS(shared / "weights")
    # Both run on the same trunk; the layers on top are the package's own.
    for slice_name, layer in (("1", "0"), ("2", "3"), ("3", "6"), ("4", "8"), ("5", "10")):
        target = getattr(theirs.net, f"slice{slice_name}").get_submodule(layer)
        target.load_state_dict(ours.features[int(layer)].state_dict())

    def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        pair = (torch.from_numpy(f).permute(2, 0, 1)[None].float() / 255 for f in (one, other))
        with torch.no_grad():
            return float(theirs(*pair, normalize=True))

    run = scorer(ours)
    found = [run.score({"m": r}, s)["m"] for r, s in zip(restored, sharp, strict=True)]
    assert found[0].tlp is None and found[0].lpips is not None
    for t in range(1, FRAMES):
        jump = distance(restored[t - 1], restored[t]) - distance(sharp[t - 1], sharp[t])
        assert found[t].tlp == pytest.approx(abs(jump), abs=1e-6)
        assert found[t].lpips == pytest.approx(distance(restored[t], sharp[t]), abs=1e-6)


def test_what_is_restored_perfectly_changes_as_it_should(
    shared: Path, sharp: list[NDArray[np.uint8]]
) -> None:
    run = scorer(LPIPS(shared / "weights"))
    for index, frame in enumerate(sharp):
        score = run.score({"m": frame}, frame)["m"]
        if index:
            assert score.tdiff == score.tlp == 0.0


def test_methods_do_not_touch_one_another(
    sharp: list[NDArray[np.uint8]], restored: list[NDArray[np.uint8]]
) -> None:
    together, alone = scorer(), scorer()
    for r, s in zip(restored, sharp, strict=True):
        both = together.score({"other": s[::-1].copy(), "m": r}, s)
        assert both["m"] == alone.score({"m": r}, s)["m"]


def test_lpips_looks_at_every_frame_once_and_compares_sharp_ones_once(
    shared: Path,
    sharp: list[NDArray[np.uint8]],
    restored: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lpips, calls = LPIPS(shared / "weights"), {"look": 0, "distance": 0}
    for name in calls:
        method = getattr(lpips, name)

        def counted(*given: object, name: str = name, method: object = method) -> object:
            calls[name] += 1
            assert callable(method)
            return method(*given)

        monkeypatch.setattr(lpips, name, counted)
    run = scorer(lpips)
    for r, s in zip(restored, sharp, strict=True):
        run.score({"a": r, "b": s}, s)
    assert calls["look"] == 3 * FRAMES
    # Each method's frame against the sharp one and its own last one, the sharp one against its.
    assert calls["distance"] == 2 * FRAMES + 2 * (FRAMES - 1) + (FRAMES - 1)


def test_no_more_than_the_last_frame_is_kept(sharp: list[NDArray[np.uint8]]) -> None:
    run = scorer()
    for frame in sharp:
        run.score({"a": frame, "b": frame}, frame)
    kept = [value for value in vars(run).values() if isinstance(value, dict)]
    assert [len(entries) for entries in kept] == [2]
