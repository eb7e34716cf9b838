"""Score models and controls on a split of a dataset folder.

In: a dataset folder, the name of a split, and models (`Restorer`: a model and its spike
representation). Out: `Results`. Frames are compared as uint8 RGB, whole, without cropping a border.
All methods see the same frames. Models restore whole sequences, in clips of `tile_frames` frames,
and whole frames, or tiles if `tile` is set (`fit_tile` sets it if memory is short). All methods
restore a sequence in parallel, frame by frame, so that each sharp frame is read once and memory
does not grow with the length of the sequence.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from vrtspike.config.choices import LayoutName
from vrtspike.config.evaluation import EvaluationSettings
from vrtspike.config.model import ModelSettings
from vrtspike.datasets.clip import Clip, read_frames, read_spikes
from vrtspike.datasets.index import Dataset, open_dataset
from vrtspike.datasets.represent import Look, own_spikes, represent_frames
from vrtspike.errors import CheckpointError, ConfigError, DataFormatError, ResourceError
from vrtspike.evaluation.controls import controls
from vrtspike.evaluation.protocol import protocol_of
from vrtspike.evaluation.results import FrameScore, Image, Panel, Results, Score
from vrtspike.evaluation.scorer import SequenceScorer
from vrtspike.metrics.image import to_uint8
from vrtspike.metrics.perceptual import LPIPS
from vrtspike.restoration.memory import MEASURED, Footprint, MemoryBudget, budget_of, choose_tile
from vrtspike.restoration.restorer import Restorer
from vrtspike.restoration.tiled import device_of, restore_stream

log = logging.getLogger(__name__)

MAX_PANELS = 12
"""Most sequences to keep a picture of; they are spread evenly over the split."""


def evaluate(
    dataset: Dataset | str | os.PathLike[str],
    split: str,
    models: Mapping[str, Restorer],
    settings: EvaluationSettings,
    *,
    weights_dir: Path | None = None,
    device: torch.device | str = "cpu",
    with_controls: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Score the controls and the models on all sequences of a split.

    `with_controls`: also score the controls and keep panels. `weights_dir`: folder of LPIPS'
    weights. Scores are computed on `device`; models run where they are. `progress` is called with
    (done, total) frames; each frame counts once for the controls and once for each model. Raises
    DataFormatError or ConfigError if the data cannot be scored (see `scored_clips`).
    """
    clips = scored_clips(dataset, split, models)
    lpips = LPIPS(weights_dir).to(device) if settings.lpips else None
    each = with_controls + len(models)
    total = sum(len(clip.frames) for clip in clips) * each
    shown = MAX_PANELS if with_controls else 0
    chosen = {clips[i].sequence for i in evenly(len(clips), shown)}
    frames, panels, done = [], [], 0
    for clip in clips:
        log.debug("evaluating %s, %d frames", clip.sequence, len(clip.frames))
        scorer = SequenceScorer(with_luma=settings.luma, lpips=lpips, device=device)
        with clip.local() as here:
            run = _Sequence(here, models, settings, scorer, with_controls)
            for _ in run.score():
                done += each
                if progress is not None:
                    progress(done, total)
        frames += run.rows
        if clip.sequence in chosen:
            panels.append(run.panel())
    protocol = protocol_of(split, clips, settings, models)
    return Results(split=split, protocol=protocol, frames=frames, panels=panels)


def scored_clips(
    dataset: Dataset | str | os.PathLike[str],
    split: str,
    models: Mapping[str, Restorer],
    *,
    layout: LayoutName = "vrtspike",
) -> tuple[Clip, ...]:
    """Return the sequences of a split.

    Raises DataFormatError if a frame has no blurred or sharp image, and ConfigError if a model uses
    spikes and a sequence has none.
    """
    clips = open_dataset(dataset, layout).clips(split)
    for clip in clips:
        for kind in ("blurred", "sharp"):
            lacking = sum(getattr(frame, kind) is None for frame in clip.frames)
            if lacking:
                raise DataFormatError(
                    f"frames without a {kind} image cannot be scored",
                    where=clip.where,
                    got=f"{lacking} of {len(clip.frames)} frames without",
                    expected=f"a {kind} image of every frame",
                    fix="score another split, or look at what `vrtspike restore` makes of this one",
                )
        wanting = [name for name, restorer in models.items() if restorer.spikes is not None]
        if clip.info.spike is None and wanting:
            raise ConfigError(
                "a model that takes spikes cannot be scored on data without them",
                where=clip.where,
                got=f"{wanting[0]}: a model with spikes",
                expected="frames with spikes, or a model without them",
                fix="give that model as --baseline if it is plain VRT, take none with "
                "--weights none, or correct data.source",
            )
    return clips


def fit_tile(
    settings: EvaluationSettings, clips: Sequence[Clip], models: Mapping[str, Restorer]
) -> EvaluationSettings:
    """Return settings with a tile size that fits into free memory, if whole frames do not fit.

    All models and sequences get the same tile size. Call it before any model has run, because
    memory that allocators keep afterwards does not count as free.
    """
    if settings.tile is not None:
        return settings
    budgets = {
        device: budget_of(device, None)
        for device in {device_of(restorer.model) for restorer in models.values()}
    }
    tiles = []
    for restorer in models.values():
        device, model = device_of(restorer.model), restorer.settings
        sizes = {
            Footprint.of(
                clip.info,
                min(len(clip.frames), settings.tile_frames),
                restorer.spikes,
                restorer.unit,
            )
            for clip in clips
        }
        for size in sizes:
            if model is not None and max(size.height, size.width) > MEASURED:  # others fit anyway
                tiles.append(_best_tile(model, size, settings, device, budgets[device]))
    return settings.model_copy(update={"tile": min(filter(None, tiles), default=None)})


def _best_tile(
    model: ModelSettings,
    size: Footprint,
    settings: EvaluationSettings,
    device: torch.device,
    budget: MemoryBudget,
) -> int | None:
    try:
        return choose_tile(
            model,
            size,
            overlap=settings.overlap,
            precision=settings.precision,
            device=device,
            budget=budget,
        )
    except ResourceError as error:
        error.fix = "lower evaluation.tile_frames or evaluation.overlap, or free memory"
        raise


def evenly(count: int, most: int) -> list[int]:
    """Return at most `most` indices below `count`, spread evenly."""
    if most == 0 or count <= most:
        return list(range(min(count, most)))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


class _Sequence:
    """Score all methods on one sequence, and keep the images of its hardest frame.

    The hardest frame is the one whose blurred input has the lowest PSNR, so the choice does not
    depend on any model.
    """

    def __init__(
        self,
        clip: Clip,
        models: Mapping[str, Restorer],
        settings: EvaluationSettings,
        scorer: SequenceScorer,
        with_controls: bool,
    ) -> None:
        self.clip, self.models, self.settings, self.scorer = clip, models, settings, scorer
        self.with_controls = with_controls
        self.rows: list[FrameScore] = []
        self._hardest: tuple[int, dict[str, Image], dict[str, Score]] | None = None

    def score(self) -> Iterator[int]:
        """Score every frame; yield its index when it is done."""
        streams = {
            name: restored_frames(self.clip, name, restorer, self.settings)
            for name, restorer in self.models.items()
        }
        for index, frame in enumerate(self.clip.frames):
            images = self._controls(index) if self.with_controls else {}
            images |= {name: next(stream) for name, stream in streams.items()}
            sharp = read_frames(self.clip, "sharp", index, index + 1)[0]
            scores = self.scorer.score(images, sharp)
            self.rows += [
                FrameScore(self.clip.sequence, frame.name, name, score)
                for name, score in scores.items()
            ]
            if self.with_controls:
                self._keep_the_hardest(index, images | {"sharp": sharp}, scores)
            yield index

    def panel(self) -> Panel:
        """Return the hardest frame by all methods."""
        assert self._hardest is not None
        index, images, scores = self._hardest
        return Panel(self.clip.sequence, self.clip.frames[index].name, images, scores)

    def _keep_the_hardest(
        self, index: int, images: dict[str, Image], scores: dict[str, Score]
    ) -> None:
        if self._hardest is None or scores["blurred"].psnr < self._hardest[2]["blurred"].psnr:
            self._hardest = (index, images, scores)

    def _controls(self, index: int) -> dict[str, Image]:
        info = self.clip.info
        blurred = read_frames(self.clip, "blurred", index, index + 1)[0]
        if info.spike is None:
            return {"blurred": blurred}
        return controls(
            blurred,
            read_spikes(self.clip, index, index + 1)[0],
            threshold=info.spike.threshold,
            exposure=info.timeline.exposure,
            target_step=info.timeline.target_step,
            tfp_steps=self.settings.tfp_steps,
            sdm_steps=self.settings.sdm_steps,
            light=info.spike.light,
        )


def restored_frames(
    clip: Clip,
    name: str,
    restorer: Restorer,
    settings: EvaluationSettings,
    look: Look | None = None,
) -> Iterator[Image]:
    """Yield the frames of a sequence restored by a model, uint8 `(h, w, 3)`, one after the other.

    `name`: the model's name in errors. `look`: reads the spikes of a frame (default: its own
    spikes).
    """

    def read(start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        return model_inputs(clip, start, stop, restorer, look or own_spikes)

    chunks = restore_stream(
        restorer.model,
        read,
        len(clip.frames),
        tile=settings.tile,
        overlap=settings.overlap,
        tile_frames=settings.tile_frames,
        overlap_frames=settings.overlap_frames,
        precision=settings.precision,
    )
    try:
        for chunk in chunks:
            for frame in chunk:
                image: Image = rearrange(to_uint8(frame), "c h w -> h w c").numpy()
                yield image
    except CheckpointError as error:
        raise CheckpointError(
            error.what, where=f"{name}, {clip.where}", got=error.got, fix=error.fix
        ) from error


def model_inputs(
    clip: Clip, start: int, stop: int, restorer: Restorer, look: Look = own_spikes
) -> tuple[Tensor, Tensor | None]:
    """Read the model inputs of frames [start, stop) of a clip, float32 and float16.

    Returns blurred frames `(t, 3, h, w)` in [0, 1] and voxels `(t, c, hs, ws)`, or None if the
    model uses no spikes.
    """
    frames = torch.from_numpy(read_frames(clip, "blurred", start, stop))
    blurred = rearrange(frames, "t h w c -> t c h w").float() / 255
    if restorer.spikes is None:
        return blurred, None
    return blurred, torch.from_numpy(represent_frames(clip, start, stop, restorer.spikes, look))
