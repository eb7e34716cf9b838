"""Training the flow network alone, on pairs of frames with known motion.

Samples are rendered scenes and video excerpts (`vrtspike.simulate.flow_pairs`), made on the fly and
not stored. An epoch has `scenes.sequences` scenes and `scenes.films.sequences` excerpts. Validation
uses rendered scenes only, because their motion is exact. It measures the end-point error in pixels
on four kinds of pairs: first guesses of a restoring model (this figure chooses the best weights),
sharp frames, spike images and blurred frames; and that of zero flow, for comparison.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from skimage.color import hsv2rgb
from torch import Tensor, nn

from vrtspike.config.config import Config
from vrtspike.config.scenes import SceneSettings
from vrtspike.errors import ConfigError
from vrtspike.model.flow_network import FlowNetwork
from vrtspike.model.spynet import levels_at, silence
from vrtspike.simulate.degradation import KINDS
from vrtspike.simulate.flow_pairs import PHASES, FlowPairReader, scale_at
from vrtspike.simulate.photographs import photographs_of
from vrtspike.simulate.video_clip import inspected
from vrtspike.training.flow_loss import FlowLoss, end_point_error
from vrtspike.training.step import Arrays, Loss, Unpacked, moved
from vrtspike.training.task import Task
from vrtspike.training.validation import Picture, sums_over
from vrtspike.video.inspect import iter_frames

FIGURES = (*(f"epe_{kind}" for kind in KINDS), "epe_zero")


class FlowTask(Task):
    """Train the flow network of `model` on pairs of frames from `scenes`."""

    judged = "epe_guess"
    judged_as = "EPE", "{:.3f} px"
    lower_is_better = True
    shown = "first frame | found motion | true motion"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        check_flow(config)
        assert config.scenes is not None
        self.scenes: SceneSettings = config.scenes

    def build(self) -> nn.Module:
        """Build the flow network.

        With `model.zero_init_flow`, finer levels start with zero output. The coarsest levels, which
        learn first, keep their random start because they learn sooner from it.
        """
        network = FlowNetwork(self.config.model.flow_channels)
        if self.config.model.zero_init_flow:
            silence(network.spynet.basic_module[levels_at(scale_at(0.0)) :])
        return network

    def loss(self, device: torch.device) -> Loss:
        """Build the multi-scale end-point error."""
        return FlowLoss().to(device)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the scene settings."""
        text = json.dumps(self.scenes.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def samples(self, split: str) -> int:
        """Return the number of scenes and video excerpts of a split."""
        return self.scenes.sequences[split] + self._films(split)

    def reader(self, split: str) -> FlowPairReader:
        """Return the reader of a split."""
        films = self.scenes.films
        videos = tuple(inspected(v) for v in films.videos) if films and self._films(split) else ()
        run, train = self.config.run, self.config.train
        return FlowPairReader(self.scenes, split, run.seed, train.steps, videos)

    def name(self, split: str, index: int) -> str:
        """Return the name of a scene or video excerpt."""
        scenes = self.scenes.sequences[split]
        if index < scenes:
            return f"{split}_{index:04d}"
        return f"{split}_film_{index - scenes:04d}"

    def unpack(self, arrays: Arrays, device: torch.device) -> Unpacked:
        """Return the inputs (pairs in [0, 1] and their scale), and the true flow in pixels."""
        pairs, true = _pairs(arrays, device)
        return (pairs, int(arrays["scale"][0])), true

    @torch.no_grad()
    def validate(
        self,
        model: nn.Module,
        split: str,
        *,
        device: torch.device,
        autocast: AbstractContextManager[Any],
        alive: Callable[[], None] | None = None,
    ) -> tuple[Mapping[str, float], Picture | None]:
        """Return the mean end-point errors of a split, in pixels."""
        reader, picture = self.reader(split), None

        def score(index: int) -> list[float]:
            nonlocal picture
            pairs, true = _pairs(reader.whole(index), device)
            with autocast:
                estimated = model(pairs)[0].float()
            if index == 0:
                picture = _picture(pairs[0, 0], estimated[0], true[0])
            errors = end_point_error(estimated, true).mean(dim=(1, 2))
            zero = end_point_error(torch.zeros_like(true), true).mean()
            return [float(kind.mean()) for kind in errors.chunk(len(KINDS))] + [float(zero)]

        count = self.samples(split)
        sums = sums_over(model, count, len(FIGURES), score, device=device, alive=alive)
        return {k: total / count for k, total in zip(FIGURES, sums, strict=True)}, picture

    def _films(self, split: str) -> int:
        """Return the number of video excerpts of a split; only the training split has any."""
        films, train = self.scenes.films, self.config.data.train_split
        return films.sequences if films and split == train else 0


def _pairs(arrays: Arrays, device: torch.device) -> tuple[Tensor, Tensor]:
    tensors = moved(arrays, device)
    return tensors["frames"].float().div_(255), tensors["flow"]


def check_flow(config: Config) -> None:
    """Check that the configuration can train a flow network."""
    scenes, train, data = config.scenes, config.train, config.data
    where = "train.task flow"
    if scenes is None:
        raise ConfigError(
            "the flow network is trained and judged on rendered scenes, and none are set",
            where=where,
            expected="`scenes`",
            fix="set scenes, as configs/flow.yaml does",
        )
    for split in (data.train_split, data.val_split):
        if not scenes.sequences.get(split):
            raise ConfigError(
                f"scenes.sequences has none of the split {split!r}",
                where=where,
                got=scenes.sequences,
                expected=f"a number of scenes above 0 for {split}",
            )
    coarsest = PHASES[0][1]
    if scenes.height % coarsest or scenes.width % coarsest:
        raise ConfigError(
            f"the training begins with scenes reduced {coarsest} times",
            where=where,
            got=f"scenes of {scenes.height}x{scenes.width}",
            expected=f"a height and a width that {coarsest} divides",
        )
    if scenes.frames < 2:
        raise ConfigError(
            "a scene of one frame has no pair of frames",
            where=where,
            got=f"scenes.frames {scenes.frames}",
            expected="2 or more",
        )
    if scenes.vary is not None:
        raise ConfigError(
            "scenes.vary does nothing for pairs of frames", where=where, expected="scenes.vary null"
        )
    if train.minutes is not None:
        raise ConfigError(
            "later steps cost more than the first ones, which so do not tell how many fit",
            where=where,
            got=f"train.minutes {train.minutes:g}",
            expected="train.minutes null, and train.steps",
        )
    photographs_of(data.train_split, scenes.photographs)
    _check_films(scenes)
    if train.freeze_flow_steps:
        raise ConfigError(
            "there is nothing to train while the flow network is frozen",
            where=where,
            got=f"train.freeze_flow_steps {train.freeze_flow_steps}",
            expected="0",
        )


def _check_films(scenes: SceneSettings) -> None:
    """Check that the videos are large enough for the excerpts cut out of them."""
    films = scenes.films
    if films is None:
        return
    for video in films.videos:
        height, width = next(iter_frames(video)).shape[:2]
        need = [2 * films.reduce[0] * length for length in (scenes.height, scenes.width)]
        if height < need[0] or width < need[1]:
            raise ConfigError(
                "the video is smaller than the pieces that are cut out of it",
                where=video,
                got=f"{height}x{width}",
                expected=f"at least {need[0]}x{need[1]}, twice the size of scenes at the least of "
                "scenes.films.reduce",
                fix="lower scenes.height and scenes.width, or leave the video out",
            )


def _picture(frame: Tensor, estimated: Tensor, true: Tensor) -> Picture:
    """Put a frame `(3, h, w)` and two flows `(2, h, w)`, in the same colours, side by side."""
    longest = float(true.square().sum(dim=0).max().sqrt())
    colours = [flow_colours(flow.cpu().numpy(), longest) for flow in (estimated, true)]
    shown = rearrange(frame.mul(255).round().byte().cpu().numpy(), "c h w -> h w c")
    return np.concatenate([shown, *colours], axis=1)


def flow_colours(flow: Float[np.ndarray, "2 h w"], longest: float) -> Picture:
    """Colour a flow: hue is the direction, saturation the length (full at `longest` pixels)."""
    x, y = flow
    hue = np.arctan2(y, x) / (2 * np.pi) % 1.0
    length = np.clip(np.hypot(x, y) / max(longest, 1e-6), 0.0, 1.0)
    colours = hsv2rgb(np.stack([hue, length, np.ones_like(hue)], axis=-1))
    return np.asarray(np.rint(colours * 255).astype(np.uint8))
