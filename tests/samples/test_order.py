"""The order of samples is a pure function, the same for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest

from vrtspike.samples.order import Draw, StepLayout, epoch_order, micro_batch, sample_rng


def step_draws(step: int, layout: StepLayout, count: int = 7, seed: int = 3) -> list[Draw]:
    """Return what all ranks train on in a step, in global order."""
    return [
        draw
        for micro in range(layout.accumulation)
        for rank in range(layout.ranks)
        for draw in micro_batch(seed, count, layout, step * layout.accumulation + micro, rank)
    ]


@pytest.mark.parametrize(("accumulation", "workers"), [(1, 2), (1, 4), (2, 2), (4, 1), (2, 1)])
def test_a_step_has_the_same_samples_however_it_is_divided(accumulation: int, workers: int) -> None:
    alone, divided = StepLayout(4, 4, 1), StepLayout(4, 4 // (accumulation * workers), workers)
    for step in range(10):
        assert step_draws(step, divided) == step_draws(step, alone)


@pytest.mark.parametrize("ranks", [3, 5, 7])
def test_ranks_that_do_not_divide_a_step_repeat_what_does_not_count(ranks: int) -> None:
    layout = StepLayout(8, 2, ranks)
    assert layout.accumulation == -(-4 // ranks)
    for step in range(5):
        counted = [
            draw
            for micro in range(layout.accumulation)
            for rank in range(ranks)
            for draw in micro_batch(3, 7, layout, step * layout.accumulation + micro, rank)
            if layout.counts(micro, rank)
        ]
        assert counted == step_draws(step, StepLayout(8, 8, 1))


def test_every_epoch_has_every_sample_once() -> None:
    layout = StepLayout(4, 2, 2)
    draws = [draw for step in range(7) for draw in step_draws(step, layout)]
    for epoch in range(4):
        assert sorted(draw.index for draw in draws if draw.epoch == epoch) == list(range(7))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(epoch_order(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)


def test_a_batch_larger_than_the_dataset_goes_round() -> None:
    draws = step_draws(0, StepLayout(6, 6, 1), count=2)
    assert [draw.epoch for draw in draws] == [0, 0, 1, 1, 2, 2]


def test_draws_of_a_sample_depend_on_seed_epoch_and_sample_only() -> None:
    def numbers(seed: int, epoch: int, index: int) -> tuple[float, ...]:
        return tuple(sample_rng(seed, Draw(epoch, index)).random(4))

    assert numbers(0, 1, 2) == numbers(0, 1, 2)
    assert len({numbers(0, 1, 2), numbers(1, 1, 2), numbers(0, 2, 2), numbers(0, 2, 1)}) == 4
    assert not np.array_equal(epoch_order(0, 1, 4), numbers(0, 1, 2))
