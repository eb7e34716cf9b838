"""Where the frames' picture lies on the spike sensor of a real rig.

In: spikes on the sensor's grid, `(s, height, width)` as stored. Out: spikes on the grid that the
frames are seen on, `(s, h, w)`, an integer number of times coarser than the frames. A `Crop` cuts a
rectangle. A `Homography` H maps positions of the frame, in pixels (x to the right, y down, a
pixel's centre at half numbers), to positions on the sensor: (u, v, 1) ~ H (x, y, 1). Each pixel of
the new grid takes the sensor pixel that its centre falls into, so bits stay bits; what falls
outside the sensor never fires.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from pydantic import Field, model_validator

from vrtspike.config.section import Positive
from vrtspike.errors import DataFormatError
from vrtspike.storage.record import Record

Row = tuple[float, float, float]
MAX_CONDITION = 1e12
"""Condition number of a matrix beyond which its inverse means nothing in double precision."""


class Crop(Record):
    """A rectangle of the sensor, in its pixels."""

    kind: Literal["crop"] = "crop"
    top: Annotated[int, Field(ge=0)]
    left: Annotated[int, Field(ge=0)]
    height: Positive
    width: Positive

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of what comes out."""
        return self.height, self.width

    def apply(self, spikes: Bool[np.ndarray, "s hs ws"]) -> Bool[np.ndarray, "s h w"]:
        """Cut the rectangle; one that leaves the sensor is a DataFormatError."""
        self.check(*spikes.shape[1:])
        return spikes[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def check(self, rows: int, columns: int) -> None:
        """Refuse a sensor of so many rows and columns that does not hold the rectangle."""
        if self.top + self.height > rows or self.left + self.width > columns:
            raise DataFormatError(
                "the crop leaves the spike sensor",
                got=f"{self.height}x{self.width} at ({self.top}, {self.left})",
                expected=f"within {rows}x{columns}",
                fix="correct spike.registration in dataset.yaml",
            )


class Homography(Record):
    """A projective map from the frame to the sensor."""

    kind: Literal["homography"] = "homography"
    matrix: tuple[Row, Row, Row]
    """H: positions in frame pixels to positions in sensor pixels."""
    height: Positive
    """Rows of the grid that comes out."""
    width: Positive
    """Columns of the grid that comes out."""
    scale: Annotated[float, Field(gt=0)]
    """Frame pixels across one pixel of that grid."""

    @model_validator(mode="after")
    def _invertible(self) -> Homography:
        matrix = np.array(self.matrix)
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > MAX_CONDITION:
            raise ValueError("the homography cannot be inverted")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of what comes out."""
        return self.height, self.width

    def apply(self, spikes: Bool[np.ndarray, "s hs ws"]) -> Bool[np.ndarray, "s h w"]:
        """Take the sensor pixel under each grid pixel's centre."""
        rows, columns, inside = self._places(*spikes.shape[1:])
        taken: NDArray[np.bool_] = spikes[:, rows, columns]
        return taken & inside

    def _places(
        self, height: int, width: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Return the sensor's row and column of each grid pixel, and whether it lies inside."""
        y, x = np.mgrid[: self.height, : self.width] + 0.5
        frame = np.stack([x * self.scale, y * self.scale, np.ones_like(x)])
        u, v, w = np.einsum("ij,jhw->ihw", np.array(self.matrix), frame)
        # H and -H are one map. What lies behind the horizon, seen from the centre, is outside.
        ahead = np.sign(w[self.height // 2, self.width // 2]) * w > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = np.floor(u / w), np.floor(v / w)
        inside = ahead & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        rows, columns = (np.where(inside, place, 0).astype(np.intp) for place in (v, u))
        return rows, columns, inside


Registration = Annotated[Crop | Homography, Field(discriminator="kind")]
