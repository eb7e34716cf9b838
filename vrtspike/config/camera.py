"""Settings of the simulated spike camera.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from vrtspike.config.section import Count, Fraction, Section


class CameraSettings(Section):
    """The simulated integrate-and-fire spike camera."""

    model_config = ConfigDict(allow_inf_nan=False)

    threshold: Annotated[float, Field(gt=0)] = 2.0
    """Charge at which a pixel fires, in steps of full brightness: rate = intensity / threshold."""
    rate_hz: Annotated[float, Field(gt=0)] = 1920.0
    """Spike steps a second."""
    downscale: Literal[1, 2, 4] = 1
    """The spike grid is this many times coarser than the frame's (box average)."""
    color: Literal["gray", "bayer"] = "gray"
    """What a pixel sees. `gray`: the luma of the frame. `bayer`: one channel of it, in an RGGB
    mosaic; readers take the stream for gray, so its mosaic shows."""
    light: Literal["gamma", "linear"] = "gamma"
    """What is integrated. `gamma`: gamma-encoded values, as published datasets do. `linear`: the
    light that they stand for (sRGB transfer function), as a real photodiode does."""
    blur: Literal["gamma", "linear"] = "gamma"
    """What the blurred frame is the mean of. `gamma`: gamma-encoded values (GoPro's `blur`).
    `linear`: linear light, encoded again (as GoPro's `blur_gamma`, there with gamma 2.2)."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the charge noise of one step (intensity 1 = 1); a dark pixel fires at
    random about (noise / threshold)^2 times a step."""
    dark_rate: Annotated[float, Field(ge=0)] = 0.0
    """Charge that darkness adds each step (intensity 1 = 1)."""
    refractory_steps: Count = 0
    """Steps after a spike in which a pixel neither integrates nor fires; their light is lost."""
    saturation: Annotated[float, Field(gt=0)] | None = None
    """Intensity beyond which a photodiode gives no more (full brightness = 1); null: none. Apart
    from it a pixel fires at most once a step, so light beyond `threshold` is lost."""
    hot_pixels: Fraction = 0.0
    """Share of the pixels that fire at every step, drawn once a sequence."""
    dead_pixels: Fraction = 0.0
    """Share of the pixels that never fire, drawn once a sequence."""

    @model_validator(mode="after")
    def _defects_fit(self) -> Self:
        if self.hot_pixels + self.dead_pixels > 1:
            raise ValueError(
                f"hot_pixels {self.hot_pixels} and dead_pixels {self.dead_pixels} are more than all"
            )
        return self
