"""Training the flow network alone: pairs of rendered frames with their exact motion.

Samples are scenes (`vrtspike.simulate.flow_pairs`), of which nothing is stored; an epoch is as many
as `scenes.sequences` says. Validation measures end-point errors, in pixels: of sharp pairs, of the
same pairs blurred, and of the flow that says nothing moves.
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

from vrtspike.errors import ConfigError
from vrtspike.model.flow_network import FlowNetwork
from vrtspike.model.spynet import levels_at, silence
from vrtspike.scene_settings import SceneSettings
from vrtspike.settings import Config
from vrtspike.simulate.flow_pairs import PHASES, FlowPairReader, scale_at
from vrtspike.simulate.photographs import photographs_of
from vrtspike.training.flow_loss import FlowLoss, end_point_error
from vrtspike.training.step import Arrays, Loss, Unpacked, moved
from vrtspike.training.task import Task
from vrtspike.training.validation import Picture, sums_over

FIGURES = ("epe", "epe_blurred", "epe_zero")


class FlowTask(Task):
    """The flow network of `model`, on pairs of `scenes`."""

    judged = "epe"
    judged_as = "EPE", "{:.3f} px"
    lower_is_better = True
    shown = "first frame | found motion | true motion"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        check_flow(config)
        assert config.scenes is not None
        self.scenes: SceneSettings = config.scenes

    def build(self) -> nn.Module:
        """Build the network.

        With `model.zero_init_flow` finer levels say nothing until they learn; those that learn
        first do it sooner from noise.
        """
        network = FlowNetwork(self.config.model.flow_channels)
        if self.config.model.zero_init_flow:
            silence(network.spynet.basic_module[levels_at(scale_at(0.0)) :])
        return network

    def loss(self, device: torch.device) -> Loss:
        """Build the end-point error over scales."""
        return FlowLoss().to(device)

    @property
    def fingerprint(self) -> str:
        """Return that of the settings of the scenes."""
        text = json.dumps(self.scenes.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def samples(self, split: str) -> int:
        """Return how many scenes a split has."""
        return self.scenes.sequences[split]

    def reader(self, split: str) -> FlowPairReader:
        """Return the reader of a split."""
        return FlowPairReader(self.scenes, split, self.config.run.seed, self.config.train.steps)

    def name(self, split: str, index: int) -> str:
        """Name a scene."""
        return f"{split}_{index:04d}"

    def unpack(self, arrays: Arrays, device: torch.device) -> Unpacked:
        """Return pairs in [0, 1], and their motion."""
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
        """Measure end-point errors."""
        reader, picture = self.reader(split), None

        def score(index: int) -> list[float]:
            nonlocal picture
            pairs, true = _pairs(reader.whole(index), device)
            with autocast:
                found = model(pairs)[0].float()
            if index == 0:
                picture = _picture(pairs[0, 0], found[0], true[0])
            half = len(true) // 2
            errors = end_point_error(found, true)
            zero = end_point_error(torch.zeros_like(true), true)
            means = (errors[:half].mean(), errors[half:].mean(), zero.mean())
            return [float(mean) for mean in means]

        count = self.samples(split)
        sums = sums_over(model, count, len(FIGURES), score, device=device, alive=alive)
        return {k: total / count for k, total in zip(FIGURES, sums, strict=True)}, picture


def _pairs(arrays: Arrays, device: torch.device) -> tuple[Tensor, Tensor]:
    tensors = moved(arrays, device)
    return tensors["frames"].float().div_(255), tensors["flow"]


def check_flow(config: Config) -> None:
    """Check that the configuration can train a flow network."""
    scenes, train, data = config.scenes, config.train, config.data
    where = "train.task flow"
    if scenes is None:
        raise ConfigError(
            "the flow network is trained on rendered scenes, and none are set",
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
    for name, value in (("vary", scenes.vary), ("films", scenes.films)):
        if value is not None:
            raise ConfigError(
                f"scenes.{name} does nothing for pairs of rendered frames",
                where=where,
                expected=f"scenes.{name} null",
            )
    if train.minutes is not None:
        raise ConfigError(
            "later steps cost more than the first ones, which so do not tell how many fit",
            where=where,
            got=f"train.minutes {train.minutes:g}",
            expected="train.minutes null, and train.steps",
        )
    photographs_of(data.train_split, scenes.photographs)
    if train.freeze_flow_steps:
        raise ConfigError(
            "there is nothing to train while the flow network is frozen",
            where=where,
            got=f"train.freeze_flow_steps {train.freeze_flow_steps}",
            expected="0",
        )


def _picture(frame: Tensor, found: Tensor, true: Tensor) -> Picture:
    """Put a frame `(3, h, w)` and two flows `(2, h, w)` side by side, of one scale of colours."""
    longest = float(true.square().sum(dim=0).max().sqrt())
    colours = [flow_colours(flow.cpu().numpy(), longest) for flow in (found, true)]
    shown = rearrange(frame.mul(255).round().byte().cpu().numpy(), "c h w -> h w c")
    return np.concatenate([shown, *colours], axis=1)


def flow_colours(flow: Float[np.ndarray, "2 h w"], longest: float) -> Picture:
    """Show directions as hues and lengths as saturation, full at `longest` pixels."""
    x, y = flow
    hue = np.arctan2(y, x) / (2 * np.pi) % 1.0
    length = np.clip(np.hypot(x, y) / max(longest, 1e-6), 0.0, 1.0)
    colours = hsv2rgb(np.stack([hue, length, np.ones_like(hue)], axis=-1))
    return np.asarray(np.rint(colours * 255).astype(np.uint8))
