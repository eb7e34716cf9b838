"""Settings of a sweep: what is tried, how it is searched, and when a trial is cut short.

`space` names settings of the configuration by their dotted keys, each with one of

    {grid: [2, 4, 8]}             every value
    {choice: [temporal, window]}  one of the values
    {uniform: [0.0, 0.2]}         a number of the range
    {log_uniform: [1e-4, 1e-2]}   the same, its logarithm uniform
    {integer: [8, 32], step: 8}   a whole number of the range, ends included
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from vrtspike.config.roles import MAY_CHANGE_IN_SWEEP
from vrtspike.config.section import Count, Positive, Section


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a value that is there twice."""
    for index, value in enumerate(values):
        if value in values[:index] and type(value) in map(type, values[:index]):
            raise ValueError(f"{value!r} is there twice")
    return values


Values = Annotated[tuple[Any, ...], Field(min_length=1), AfterValidator(_different)]


class Grid(Section):
    """Every value is tried."""

    grid: Values


class Choice(Section):
    """One of the values is drawn."""

    choice: Values


class _Range(Section):
    """Refuse ends that are no range."""

    model_config = ConfigDict(allow_inf_nan=False)

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        low, high = self.ends
        if low >= high:
            raise ValueError(f"[{low:g}, {high:g}] is not a range, least end first")
        return self


class Uniform(_Range):
    """A number of the range is drawn."""

    uniform: tuple[float, float]

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return self.uniform


class LogUniform(_Range):
    """A number of the range is drawn, uniform in its logarithm."""

    log_uniform: tuple[Annotated[float, Field(gt=0)], float]

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return self.log_uniform


class Integer(_Range):
    """A whole number of the range is drawn, both ends included."""

    integer: tuple[int, int]
    step: Positive = 1
    """Distance of two values."""

    @property
    def ends(self) -> tuple[int, int]:
        """Return the least and the greatest value."""
        return self.integer


KINDS = ("grid", "choice", "uniform", "log_uniform", "integer")


def _kind(value: Any) -> str | None:
    """Tell which kind of distribution a mapping, or a model of one, is."""
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
    """A sweep over settings, beside the same model without spikes.

    All trials have the same budget: `train.steps`, or, at equal time, `train.minutes`.
    """

    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Dotted keys of settings, and the values to try."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """How trials are chosen. `grid`: all combinations; `random`: independent draws, each with all
    combinations of the `grid` keys, if any; `optuna`: where earlier trials did well (TPE)."""
    trials: Annotated[Positive | None, MAY_CHANGE_IN_SWEEP] = None
    """Number of draws (random) or of trials (optuna); null with grid, which has as many as there
    are combinations."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the search."""
    impossible: Literal["refuse", "skip"] = "refuse"
    """What happens to a space that holds combinations which no model can have. `refuse`: the sweep
    does not start; `skip`: they are left out."""
    metric: Literal["psnr", "ssim", "step_s", "memory_gb"] = "psnr"
    """What ranks the trials: scores of the validation split, or, for settings that change cost and
    not results, seconds of a step or most memory of a worker."""
    scheduler: Literal["none", "asha", "median"] = "none"
    """What cuts trials short. `asha`: those not among the best after the shares grace,
    grace x reduction, ... of their steps; `median`: those whose best is below the median of the
    others' means."""
    grace: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of its steps that every trial may take (asha, median)."""
    reduction: Annotated[float, Field(gt=1)] | None = None
    """One in so many trials goes on at each of asha's steps; null: 3."""
    repeats: Annotated[Positive, MAY_CHANGE_IN_SWEEP] = 3
    """Seeds with which the baseline and the finalists are trained, so that gains have a spread;
    where trials are ranked by cost, their results being equal, one."""
    finalists: Annotated[Count, MAY_CHANGE_IN_SWEEP] = 1
    """Best trials that are trained with the other seeds too; none where ranked by cost."""
    concurrency: Annotated[Positive | None, MAY_CHANGE_IN_SWEEP] = None
    """Most trials at the same time; null: as many as the cluster has room for, or, where trials are
    ranked by cost, one."""

    @property
    def cost(self) -> bool:
        """Tell whether trials are ranked by what they cost, their results being equal."""
        return self.metric in ("step_s", "memory_gb")

    @model_validator(mode="after")
    def _search_fits_space(self) -> Self:
        kinds = {key: _kind(how) for key, how in self.space.items()}
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
