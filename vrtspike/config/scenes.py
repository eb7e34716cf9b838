"""Settings of what is simulated: rendered scenes, and videos that are recorded.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from vrtspike.config.section import (
    Fraction,
    LocalPath,
    PlainName,
    Positive,
    Section,
    Seed,
    Side,
    listed,
)


class VarySettings(Section):
    """What differs from one sequence of scenes to the next: drawn evenly from [least, greatest].

    Null: the same for all, as `camera` and `scenes` say.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    threshold: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """Charge at which a pixel fires."""
    noise: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """Standard deviation of the charge noise of one step."""
    steps_per_frame: tuple[Positive, Positive] | None = None
    """Spike steps from one frame's start to the next one's: a faster or slower spike camera beside
    frames of the same rate."""
    exposure: tuple[Fraction, Fraction] | None = None
    """Share of a frame's steps over which it integrates, from a step on that is drawn, too. Things
    move as fast as ever: a shorter exposure blurs less."""
    target: tuple[Fraction, Fraction] | None = None
    """Share of the exposure after which the instant of the sharp frames lies, to a whole step: 0 is
    its start, 1 its end. Null: its middle."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for name, value in self:
            if value is not None and value[0] > value[1]:
                raise ValueError(f"{name} {value} is not a range")
        if self.exposure is not None and self.exposure[0] == 0:
            raise ValueError(f"exposure {self.exposure} may be no exposure at all")
        return self


class FilmSettings(Section):
    """Sequences cut out of sharp videos, beside those that are rendered; for training alone."""

    videos: Annotated[tuple[LocalPath, ...], Field(min_length=1)]
    """Video files, or folders of frames, taken in turn."""
    sequences: Annotated[int, Field(gt=0, le=1_000_000)]
    """Sequences of the training split."""
    source_frames: tuple[Positive, Positive] = (2, 5)
    """Least and greatest number of the video's frames from one frame's start to the next one's."""
    reduce: tuple[Positive, Positive] = (1, 3)
    """Least and greatest factor by which the video is made smaller, as far as it stays larger than
    the frames, which are cut out of it somewhere."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for name in ("source_frames", "reduce"):
            if getattr(self, name)[0] > getattr(self, name)[1]:
                raise ValueError(f"{name} {getattr(self, name)} is not a range")
        return self


def _check_exposure(exposure_steps: int, steps_per_frame: int) -> None:
    """Refuse an exposure that is longer than its frame."""
    if exposure_steps > steps_per_frame:
        raise ValueError(
            f"exposure_steps {exposure_steps} is longer than steps_per_frame {steps_per_frame}"
        )


class SceneSettings(Section):
    """Rendered scenes: photographs moved by known smooth motion with parallax."""

    model_config = ConfigDict(allow_inf_nan=False)

    sequences: dict[PlainName, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        {"train": 24, "val": 2, "held_out": 6}
    )
    """Number of sequences of each split; `train` and the others never share a photograph."""
    frames: Positive = 8
    """Frames of a sequence."""
    height: Side = 128
    """Height of a frame."""
    width: Side = 128
    """Width of a frame."""
    steps_per_frame: Positive = 64
    """Spike steps from one frame's start to the next one's."""
    exposure_steps: Positive = 56
    """Steps over which a frame integrates; the rest is dead time."""
    motion: tuple[float, float] = (5.0, 20.0)
    """Least and greatest length of the blur, in pixels a exposure (camera and objects)."""
    objects: tuple[int, int] = (1, 3)
    """Least and greatest number of foreground objects."""
    photographs: (
        Annotated[tuple[LocalPath, ...], BeforeValidator(listed), Field(min_length=1)] | None
    ) = None
    """Image files, or folders of them, that scenes are made of: a dozen or more. Their names decide
    which nine of ten are trained on (`vrtspike.simulate.photographs`). Null: those that ship with
    scikit-image."""
    seed: Seed = 0
    """Seed of photographs, motion and camera noise."""
    vary: VarySettings | None = None
    """What differs between sequences; null: nothing but what is seen."""
    films: FilmSettings | None = None
    """Training sequences out of videos, beside the rendered ones; null: none."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        if not 0 <= self.motion[0] <= self.motion[1] or self.motion[1] == 0:
            raise ValueError(f"motion {self.motion} is not a range of lengths above 0")
        if not 0 <= self.objects[0] <= self.objects[1] <= 1000:
            raise ValueError(f"objects {self.objects} is not a range of counts")
        return self

    @model_validator(mode="after")
    def _exposure_fits(self) -> Self:
        _check_exposure(self.exposure_steps, self.steps_per_frame)
        return self


class VideoSettings(Section):
    """Recording a sharp video with both cameras: time is stretched to the spike camera's rate."""

    model_config = ConfigDict(allow_inf_nan=False)

    source_frames: Positive = 5
    """Frames of the video that pass from one blurred frame's start to the next one's."""
    frames: Positive = 8
    """Frames of a sequence; sequences follow one another and share no frame of the video."""
    interpolation: Literal["linear", "flow"] = "flow"
    """Light between two frames of the video. `flow`: both moved along the optical flow between
    them, then mixed. `linear`: their mixture; faster, and far from the truth where things move."""
    steps_per_frame: Positive = 64
    """Spike steps from one frame's start to the next one's."""
    exposure_steps: Positive = 56
    """Steps over which a frame integrates; the rest is dead time."""
    splits: Annotated[dict[PlainName, Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        {"train": 0.7, "val": 0.1, "held_out": 0.2}
    )
    """Share of the sequences of each split, in the order of the video; each gets at least one."""
    seed: Seed = 0
    """Seed of the spike camera's charge and noise."""

    @model_validator(mode="after")
    def _exposure_fits(self) -> Self:
        _check_exposure(self.exposure_steps, self.steps_per_frame)
        return self
