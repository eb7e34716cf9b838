"""Every shipped sweep can run, also over other configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from vrtspike.config.config import Config
from vrtspike.config.loader import keys_with, load_config
from vrtspike.config.roles import COST
from vrtspike.tuning import space
from vrtspike.tuning.checks import Possible, check_space
from vrtspike.tuning.search import search_of
from vrtspike.tuning.space import sweep_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted((CONFIGS / "tune").iterdir())
OTHER = CONFIGS / "gopro_spike.yaml"


def load(path: Path, base: Path | None = None) -> Config:
    """Read a sweep; the weights of VGG are not at hand here."""
    return load_config(path, ["loss.vgg=0"], base=base)


@pytest.mark.parametrize("base", [None, OTHER], ids=["demo", "gopro_spike"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_run(path: Path, base: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The users' check looks at more combinations.
    monkeypatch.setattr(space, "MOST_CHECKED", 12 if base is None else 4)
    config = load(path, base)
    check_space(config)
    sweep = sweep_of(config)
    assert sweep.repeats == (1 if path.stem == "debug" else 3)
    trials = sweep.trials or search_of(sweep, lambda settings: None).count
    assert 2 <= trials <= 24
    assert config.run.name == f"tune_{path.stem}"


def test_they_are_the_ones_that_are_asked_for() -> None:
    names = {path.stem for path in FILES}
    assert names == {
        *("heads", "chunk_sizes", "loss_weights", "spike_bins", "fusion", "learning_rate"),
        *("combined", "debug", "representation", "guess", "refinement", "batch_and_crop"),
    }


def test_over_another_base_they_train_as_it_says() -> None:
    other = load_config(OTHER, ["loss.vgg=0"])
    for path in FILES:
        found = load(path, OTHER)
        assert (found.model, found.data, found.loss) == (other.model, other.data, other.loss)
        assert found.sweep == load(path).sweep


def test_heads_that_do_not_divide_the_channels_are_left_out() -> None:
    config = load(CONFIGS / "tune/heads.yaml")
    found = search_of(sweep_of(config), Possible(config, None))
    trials = [found.suggest(number) for number in range(found.count)]
    channels = (config.model.channels, config.model.refine_channels)
    divide = [heads for heads in (2, 4, 6) if all(width % heads == 0 for width in channels)]
    assert {trial["model.heads"] for trial in trials if trial} == set(divide)
    assert len(divide) > 1


def test_sweeps_over_cost_change_only_cost() -> None:
    config = load(CONFIGS / "tune/chunk_sizes.yaml")
    assert sweep_of(config).cost and set(sweep_of(config).space) <= set(keys_with(COST))
    # A step's time is the median of enough of them.
    assert config.train.steps >= 20 and config.train.log_every == 1
