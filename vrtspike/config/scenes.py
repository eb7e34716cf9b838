"""Settings of the simulation: rendered scenes, and datasets from videos.

Times are in steps of the spike camera unless a name says frames, seconds or Hz; sizes are in
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
    """Values that vary from sequence to sequence, drawn uniformly from a range [least, greatest].

    Null: the value of `camera` or `scenes` for all sequences.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    threshold: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """Charge at which a pixel fires."""
    noise: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """Standard deviation of the charge noise of one step."""
    steps_per_frame: tuple[Positive, Positive] | None = None
    """Spike steps from the start of one frame to the next. The frame rate does not change, so more
    steps mean a faster spike camera."""
    exposure: tuple[Fraction, Fraction] | None = None
    """Length of the exposure as a fraction of the steps of a frame; its start is drawn too. The
    speed of motion does not change, so a shorter exposure gives less blur."""
    target: tuple[Fraction, Fraction] | None = None
    """Instant of the sharp frame as a fraction of the exposure, rounded to a step: 0 is its start,
    1 its end. Null: its middle."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name, value in self:
            if value is not None and value[0] > value[1]:
                raise ValueError(f"{name} {value} is not a range")
        if self.exposure is not None and self.exposure[0] == 0:
            raise ValueError(f"exposure {self.exposure} may be no exposure at all")
        return self


class FilmSettings(Section):
    """Sequences from sharp videos, in addition to rendered ones; only for the training split."""

    videos: Annotated[tuple[LocalPath, ...], Field(min_length=1)]
    """Video files, or folders of frames, used in turn."""
    sequences: Annotated[int, Field(gt=0, le=1_000_000)]
    """Number of sequences to add to the training split."""
    source_frames: tuple[Positive, Positive] = (2, 5)
    """Least and greatest number of video frames from the start of one blurred frame to the next."""
    reduce: tuple[Positive, Positive] = (1, 3)
    """Least and greatest factor by which the video is reduced in size. Frames are cut out of the
    reduced video at a random position; the factor is limited to what the video allows."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("source_frames", "reduce"):
            if getattr(self, name)[0] > getattr(self, name)[1]:
                raise ValueError(f"{name} {getattr(self, name)} is not a range")
        return self


def _check_exposure(exposure_steps: int, steps_per_frame: int) -> None:
    """Raise ValueError if the exposure is longer than its frame."""
    if exposure_steps > steps_per_frame:
        raise ValueError(
            f"exposure_steps {exposure_steps} is longer than steps_per_frame {steps_per_frame}"
        )


class SceneSettings(Section):
    """Rendered scenes: photographs that move along known smooth paths, with parallax."""

    model_config = ConfigDict(allow_inf_nan=False)

    sequences: dict[PlainName, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        {"train": 24, "val": 2, "held_out": 6}
    )
    """Number of sequences of each split. `train` shares no photographs with other splits."""
    frames: Positive = 8
    """Number of frames in a sequence."""
    height: Side = 128
    """Height of a frame."""
    width: Side = 128
    """Width of a frame."""
    steps_per_frame: Positive = 64
    """Spike steps from the start of one frame to the next."""
    exposure_steps: Positive = 56
    """Length of the exposure of a frame in steps; the other steps are dead time."""
    motion: tuple[float, float] = (5.0, 20.0)
    """Least and greatest length of the blur, in pixels per exposure (camera and objects)."""
    objects: tuple[int, int] = (1, 3)
    """Least and greatest number of foreground objects."""
    photographs: (
        Annotated[tuple[LocalPath, ...], BeforeValidator(listed), Field(min_length=1)] | None
    ) = None
    """Image files, or folders of them, for the scenes; a dozen or more. A hash of the name decides
    the split of each; nine of ten are for training (see `vrtspike.simulate.photographs`). Null: the
    photographs that ship with scikit-image."""
    seed: Seed = 0
    """Seed of photographs, motion and camera noise."""
    vary: VarySettings | None = None
    """Camera and timing that vary between sequences; null: only the scene differs."""
    films: FilmSettings | None = None
    """Training sequences from videos, in addition to rendered ones; null: none."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
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
    """Simulate a dataset from a sharp video, whose speed is changed to fit the spike camera."""

    model_config = ConfigDict(allow_inf_nan=False)

    source_frames: Positive = 5
    """Number of video frames from the start of one blurred frame to the next."""
    frames: Positive = 8
    """Number of frames in a sequence; sequences share no frame of the video."""
    interpolation: Literal["linear", "flow"] = "flow"
    """Interpolation between two frames of the video. `flow`: both are warped along the optical flow
    and mixed. `linear`: both are mixed without warping; faster, but wrong where objects move."""
    steps_per_frame: Positive = 64
    """Spike steps from the start of one frame to the next."""
    exposure_steps: Positive = 56
    """Length of the exposure of a frame in steps; the other steps are dead time."""
    splits: Annotated[dict[PlainName, Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        {"train": 0.7, "val": 0.1, "held_out": 0.2}
    )
    """Fraction of the sequences for each split, in the order of the video; each split gets at least
    one sequence."""
    seed: Seed = 0
    """Seed of the spike camera's initial charge and noise."""

    @model_validator(mode="after")
    def _exposure_fits(self) -> Self:
        _check_exposure(self.exposure_steps, self.steps_per_frame)
        return self
