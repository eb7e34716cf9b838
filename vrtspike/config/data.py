"""Settings of a dataset: its folder, its shards, and the augmentation of training samples.

Times are in steps of the spike camera unless a name says frames, seconds or Hz; sizes are in
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
    """Random misregistration of spikes and frames, drawn for each training sample."""

    model_config = ConfigDict(allow_inf_nan=False)

    shift: Annotated[float, Field(ge=0, le=1024)] = 0.0
    """Greatest vertical and greatest horizontal shift, either way, in frame pixels."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Greatest rotation either way around the middle of the crop, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest relative change of size of the spike image: 0.1 is 10 % larger or smaller."""


class DataSettings(Section):
    """A dataset folder, the shards made from it, and the training samples drawn from them."""

    source: Annotated[Place, PLACE] = Path("data/scenes")
    """Dataset folder: a path, or a URI such as s3://bucket/folder."""
    layout: LayoutName = "vrtspike"
    """Layout of the dataset folder. `vrtspike`: <split>/<sequence>/{blurred,sharp,spike} and
    dataset.yaml. The others are published layouts (see `vrtspike.datasets.layouts`)."""
    shards: Annotated[Place, PLACE] = Path("data/shards")
    """Folder of the prepared Parquet shards: a path, or a URI."""
    train_split: PlainName = "train"
    """Split for training."""
    val_split: Annotated[PlainName, MAY_CHANGE] = "val"
    """Split for validation during training, on whole frames."""
    frames: Annotated[int, Field(ge=2, le=1000)] = 6
    """Frames of a training sample (t)."""
    stride: Positive = 1
    """Number of frames from the start of one sample of a sequence to the next."""
    crop: Annotated[Side, SWEPT_BY_TIME] = 256
    """Side of the square training crop."""
    voxels: Annotated[Literal["rate", "log1p"], SPIKES] = "rate"
    """Value of a voxel. `rate`: spike count / steps of the bin x threshold. `log1p`: log1p of the
    spike count."""
    augment: bool = True
    """Random flips in space and time, and transposition of rows and columns."""
    threshold_factors: Annotated[
        Annotated[tuple[Annotated[int, Field(gt=0, lt=256)], ...], Field(min_length=1)], SPIKES
    ] = (1,)
    """One factor is drawn for each training sample, whose spikes become those of a camera with this
    many times the threshold."""
    time_shift_steps: Annotated[Count, SPIKES] = 0
    """Greatest shift in time of the spikes of a training sample against its frames, in steps,
    earlier or later. Of this and the next limits most draws are small: half are below an eighth of
    the limit (`vrtspike.spikes.transform.draw_distortion`)."""
    drop_spikes: Annotated[Fraction, SPIKES] = 0.0
    """Fraction of the training samples from which all spikes are removed, so that the model learns
    to work without them."""
    lose_spikes: Annotated[Fraction, SPIKES] = 0.0
    """Each training sample loses a random fraction of its spikes; the fraction is drawn from 0 to
    this value."""
    spike_noise: Annotated[Fraction, SPIKES] = 0.0
    """Each pixel of a training sample fires at random in each step, with a probability drawn from 0
    to this value."""
    misregister: Annotated[MisregisterSettings, SPIKES] = MisregisterSettings()
    """Misregistration of spikes and frames in training samples."""
    shard_samples: Annotated[Positive, PLACE] = 32
    """Number of samples in a shard file."""
    tile: Positive | None = None
    """Side of the tiles into which training frames are cut for the shards; null: whole frames."""
    allow_refused: Annotated[Count, PLACE] = 0
    """Greatest number of invalid sequences that `prepare` skips before it fails."""
