"""All settings: frozen and typed; an unknown key is an error.

`vrtspike.config.loader` reads them from YAML and dotted overrides.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from vrtspike.config.camera import CameraSettings
from vrtspike.config.data import DataSettings
from vrtspike.config.evaluation import EvaluationSettings
from vrtspike.config.model import ModelSettings
from vrtspike.config.roles import MAY_CHANGE, PLACE, SWEPT
from vrtspike.config.run import RunSettings
from vrtspike.config.scenes import SceneSettings, VideoSettings
from vrtspike.config.section import Section
from vrtspike.config.sweep import SweepSettings
from vrtspike.config.train import LossSettings, TrainSettings


class Config(Section):
    """All settings of a run."""

    run: RunSettings = RunSettings()
    camera: Annotated[CameraSettings, PLACE] = CameraSettings()
    scenes: Annotated[SceneSettings | None, PLACE] = None
    """Scenes to render if `data.source` does not exist; null: the dataset must exist."""
    video: Annotated[VideoSettings, PLACE] = VideoSettings()
    """How `vrtspike simulate --video` simulates a dataset from a video."""
    data: DataSettings = DataSettings()
    model: Annotated[ModelSettings, SWEPT] = ModelSettings()
    loss: Annotated[LossSettings, SWEPT] = LossSettings()
    train: Annotated[TrainSettings, SWEPT] = TrainSettings()
    evaluation: Annotated[EvaluationSettings, MAY_CHANGE] = EvaluationSettings()
    sweep: SweepSettings | None = None
    """The sweep of `vrtspike tune`; null in a configuration that is only trained."""

    @property
    def rendered(self) -> SceneSettings | None:
        """Return the scenes to render if the dataset is missing; None for other layouts."""
        return self.scenes if self.data.layout == "vrtspike" else None

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        share = self.train.workers * self.train.accumulation
        if self.train.batch % share:
            raise ValueError(
                f"train.batch {self.train.batch} does not divide over train.workers "
                f"{self.train.workers} x train.accumulation {self.train.accumulation}"
            )
        return self
