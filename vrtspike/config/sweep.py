"""Settings of a sweep: the search space, the search, and when a trial is stopped early.

`space` maps dotted keys of settings to one of

    {grid: [2, 4, 8]}             every value
    {choice: [temporal, window]}  one of the values
    {uniform: [0.0, 0.2]}         a number in the range
    {log_uniform: [1e-4, 1e-2]}   a number in the range, uniform in its logarithm
    {integer: [8, 32], step: 8}   a whole number in the range, including both ends
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from vrtspike.config.roles import MAY_CHANGE_IN_SWEEP
from vrtspike.config.section import Count, Positive, Section


def _check_unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse duplicate values."""
    for index, value in enumerate(values):
        if value in values[:index] and type(value) in map(type, values[:index]):
            raise ValueError(f"{value!r} is there twice")
    return values


Values = Annotated[tuple[Any, ...], Field(min_length=1), AfterValidator(_check_unique)]


class Grid(Section):
    """Every value, in combination with every value of the other grids."""

    grid: Values


class Choice(Section):
    """One of the values."""

    choice: Values


class _Range(Section):
    """A range of numbers; the first must be below the second."""

    model_config = ConfigDict(allow_inf_nan=False)

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        low, high = self.ends
        if low >= high:
            raise ValueError(f"[{low:g}, {high:g}] is not a range, least end first")
        return self


class Uniform(_Range):
    """A number in the range."""

    uniform: tuple[float, float]

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return self.uniform


class LogUniform(_Range):
    """A number in the range, uniform in its logarithm."""

    log_uniform: tuple[Annotated[float, Field(gt=0)], float]

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return self.log_uniform


class Integer(_Range):
    """A whole number in the range, including both ends."""

    integer: tuple[int, int]
    step: Positive = 1
    """Distance between neighbouring values."""

    @property
    def ends(self) -> tuple[int, int]:
        """Return the least and the greatest value."""
        return self.integer


KINDS = ("grid", "choice", "uniform", "log_uniform", "integer")


def _kind(value: Any) -> str | None:
    """Return the kind of a distribution, given as a mapping or a model; None if unknown."""
    keys = value if isinstance(value, Mapping) else getattr(type(value), "model_fields", ())
    return next((kind for kind in KINDS if kind in keys), None)


Distribution = Annotated[
    Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Integer, Tag("integer")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message=f"one of {', '.join(KINDS)}, such as {{choice: [2, 4]}}",
    ),
]


class SweepSettings(Section):
    """A sweep over settings. It also trains a baseline, the same model without spikes.

    All trials have the same budget: `train.steps`, or `train.minutes` of equal time.
    """

    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """The values to try, by the dotted keys of settings."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """How trials are chosen. `grid`: all combinations. `random`: independent draws, each combined
    with all combinations of the `grid` keys, if any. `optuna`: near earlier trials with good
    results (TPE)."""
    trials: Annotated[Positive | None, MAY_CHANGE_IN_SWEEP] = None
    """Number of draws (random) or trials (optuna); must be null with grid, whose trials are all
    combinations."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the search."""
    impossible: Literal["refuse", "skip"] = "refuse"
    """What to do if the space has combinations that no model can have. `refuse`: the sweep does not
    start. `skip`: they are left out."""
    metric: Literal["psnr", "ssim", "step_s", "memory_gb"] = "psnr"
    """The metric that ranks trials. `psnr`, `ssim`: on the validation split. `step_s`, `memory_gb`:
    seconds per step and peak memory of a worker, for settings that change only the cost."""
    scheduler: Literal["none", "asha", "median"] = "none"
    """What stops trials early. `asha`: after the fractions grace, grace x reduction, ... of its
    steps, a trial that is not among the best stops. `median`: a trial stops if its best result is
    below the median of the other trials' means."""
    grace: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction of its steps that every trial runs before it may be stopped (asha, median)."""
    reduction: Annotated[float, Field(gt=1)] | None = None
    """One in this many trials continues after each fraction of asha; null: 3."""
    repeats: Annotated[Positive, MAY_CHANGE_IN_SWEEP] = 3
    """Number of seeds with which the baseline and the finalists are trained, to estimate the spread
    of gains; one if trials are ranked by cost, because their results are equal."""
    finalists: Annotated[Count, MAY_CHANGE_IN_SWEEP] = 1
    """Number of best trials to train with the other seeds too; none if ranked by cost."""
    concurrency: Annotated[Positive | None, MAY_CHANGE_IN_SWEEP] = None
    """Greatest number of trials at the same time; null: as many as fit on the cluster, or one if
    trials are ranked by cost."""

    @property
    def cost(self) -> bool:
        """Return whether trials are ranked by cost, which assumes that their results are equal."""
        return self.metric in ("step_s", "memory_gb")

    @model_validator(mode="after")
    def _search_fits_space(self) -> Self:
        kinds = {key: _kind(values) for key, values in self.space.items()}
        wrong = {
            "grid": [key for key, kind in kinds.items() if kind != "grid"],
            "random": [],
            "optuna": [key for key, kind in kinds.items() if kind == "grid"],
        }[self.search]
        if wrong:
            raise ValueError(
                f"search {self.search} does not take {kinds[wrong[0]]} ({wrong[0]}); "
                + ("set search random or optuna" if self.search == "grid" else "use choice")
            )
        if (self.trials is None) != (self.search == "grid"):
            what = "takes no `trials`" if self.search == "grid" else "needs `trials`"
            raise ValueError(f"search {self.search} {what}")
        return self

    @model_validator(mode="after")
    def _scheduler_fits(self) -> Self:
        if (self.grace is None) != (self.scheduler == "none"):
            needs = "takes no" if self.scheduler == "none" else "needs"
            raise ValueError(f"scheduler {self.scheduler} {needs} `grace`")
        if self.reduction is not None and self.scheduler != "asha":
            raise ValueError(f"scheduler {self.scheduler} takes no `reduction`")
        if self.cost and self.scheduler != "none":
            raise ValueError(f"metric {self.metric} needs whole trials: set scheduler none")
        return self
