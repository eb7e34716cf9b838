"""Settings of the simulated spike camera.

Times are in steps of the spike camera unless a name says frames, seconds or Hz; sizes are in
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
    """Spike steps per second."""
    downscale: Literal[1, 2, 4] = 1
    """How many times fewer pixels per side the spike camera has than the frame (box average)."""
    color: Literal["gray", "bayer"] = "gray"
    """What a pixel measures. `gray`: the luma of the frame. `bayer`: one colour channel, in an RGGB
    mosaic; readers treat the stream as gray, so the mosaic is visible."""
    light: Literal["gamma", "linear"] = "gamma"
    """What a pixel integrates. `gamma`: gamma-encoded values, as in published datasets. `linear`:
    linear light (by the sRGB transfer function), as a real photodiode does."""
    blur: Literal["gamma", "linear"] = "gamma"
    """How the blurred frame is averaged. `gamma`: over gamma-encoded values (GoPro's `blur`).
    `linear`: over linear light, then encoded (as GoPro's `blur_gamma`, which uses gamma 2.2)."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the charge noise of one step (full brightness adds 1 per step). A dark
    pixel fires at random about (noise / threshold)^2 times per step."""
    dark_rate: Annotated[float, Field(ge=0)] = 0.0
    """Charge that dark current adds in each step (full brightness adds 1)."""
    refractory_steps: Count = 0
    """Steps after a spike in which a pixel neither integrates nor fires; their light is lost."""
    saturation: Annotated[float, Field(gt=0)] | None = None
    """Greatest intensity that a photodiode measures (full brightness = 1); null: no limit. In any
    case a pixel fires at most once per step, so light beyond `threshold` per step is lost."""
    hot_pixels: Fraction = 0.0
    """Fraction of the pixels that fire at every step, drawn once per sequence."""
    dead_pixels: Fraction = 0.0
    """Fraction of the pixels that never fire, drawn once per sequence."""

    @model_validator(mode="after")
    def _check_defective_pixels(self) -> Self:
        if self.hot_pixels + self.dead_pixels > 1:
            raise ValueError(
                f"hot_pixels {self.hot_pixels} and dead_pixels {self.dead_pixels} are more than all"
            )
        return self
