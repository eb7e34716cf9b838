"""Settings of a dataset: its folder, its shards, and how training samples are changed.

Lengths in time are steps of the spike camera unless a name says frames, seconds or Hz; sizes are
pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from vrtspike.config.choices import LayoutName
from vrtspike.config.roles import MAY_CHANGE, PLACE, SPIKES, SWEPT_BY_TIME
from vrtspike.config.section import Count, Fraction, Place, PlainName, Positive, Section, Side


class MisregisterSettings(Section):
    """How far training samples' spikes lie beside what their frames show, as a draw for each."""

    model_config = ConfigDict(allow_inf_nan=False)

    shift: Annotated[float, Field(ge=0, le=1024)] = 0.0
    """Greatest shift down or up, and to the left or right, in frame pixels."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Greatest rotation either way around the middle of the crop, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest share by which the spikes' picture is larger or smaller."""


class DataSettings(Section):
    """A dataset folder, the shards made from it, and what the model sees of them."""

    source: Annotated[Place, PLACE] = Path("data/scenes")
    """Dataset folder: a path, or a URI such as s3://bucket/folder."""
    layout: LayoutName = "vrtspike"
    """How the dataset folder is laid out. `vrtspike`: <split>/<sequence>/{blurred,sharp,spike} and
    dataset.yaml; the others as their authors publish them (`vrtspike.datasets.layouts`)."""
    shards: Annotated[Place, PLACE] = Path("data/shards")
    """Folder of the prepared Parquet shards: a path, or a URI."""
    train_split: PlainName = "train"
    """Split that is trained on."""
    val_split: Annotated[PlainName, MAY_CHANGE] = "val"
    """Split that is validated on, whole frames, while training."""
    frames: Annotated[int, Field(ge=2, le=1000)] = 6
    """Frames of a training sample (t)."""
    stride: Positive = 1
    """Frames between the starts of two samples of a sequence."""
    crop: Annotated[Side, SWEPT_BY_TIME] = 256
    """Side of the square training crop."""
    voxels: Annotated[Literal["rate", "log1p"], SPIKES] = "rate"
    """`rate`: count / steps of the bin x threshold. `log1p`: log1p of the count."""
    augment: bool = True
    """Random flips and transpositions, in space and time."""
    threshold_factors: Annotated[
        Annotated[tuple[Annotated[int, Field(gt=0, lt=256)], ...], Field(min_length=1)], SPIKES
    ] = (1,)
    """One of these is drawn for each training sample: its spikes become those of a camera of so
    many times the threshold."""
    time_shift_steps: Annotated[Count, SPIKES] = 0
    """Training samples' spikes are shifted against their frames by up to so many steps, earlier or
    later. Of this and the next limits most draws are small: half are below an eighth of the limit
    (`vrtspike.spikes.transform.draw_distortion`)."""
    drop_spikes: Annotated[Fraction, SPIKES] = 0.0
    """Share of the training samples whose spikes are all taken away, so that the model learns what
    to do without."""
    lose_spikes: Annotated[Fraction, SPIKES] = 0.0
    """Training samples lose a share of their spikes at random, drawn from 0 to this."""
    spike_noise: Annotated[Fraction, SPIKES] = 0.0
    """Pixels of training samples fire in each step with a probability of their own, drawn from 0 to
    this."""
    misregister: Annotated[MisregisterSettings, SPIKES] = MisregisterSettings()
    """Where training samples' spikes lie on their frames."""
    shard_samples: Annotated[Positive, PLACE] = 32
    """Samples of a shard file."""
    tile: Positive | None = None
    """Side of the tiles into which training frames are cut when sharding; null: whole frames."""
    allow_refused: Annotated[Count, PLACE] = 0
    """How many sequences `prepare` may refuse before it fails."""
