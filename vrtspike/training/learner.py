"""A model in training on one rank: the sharded model, its optimiser, loss, average and state.

In: a task, this rank and its device. Out: a `Learner`, whose attributes the training loop uses
directly. The initial weights do not depend on the number of ranks. After the model is built, each
rank has a random seed of its own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import torch
from torch import nn

from vrtspike.checkpoints.local_part import LocalParameters
from vrtspike.model import load_weights
from vrtspike.samples.order import StepLayout
from vrtspike.training.ema import AveragedWeights
from vrtspike.training.optim import build_optimizer
from vrtspike.training.parallel import parallelize, reshard_all
from vrtspike.training.state import TrainingState
from vrtspike.training.step import TrainingStep, Unpack
from vrtspike.training.task import Task

logger = logging.getLogger(__name__)


class Learner:
    """A model in training, with everything that a step changes.

    `ranks_per_node`: the number of ranks that share one copy of the weights (default: all ranks).
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        *,
        rank: int,
        ranks_per_node: int | None = None,
    ) -> None:
        self._config, self._device, self._rank = task.config, device, rank
        train = self._config.train
        self.model = self._build_model(task, ranks_per_node)
        self.parameters = LocalParameters(self.model)
        self.optimizer = build_optimizer(
            self.parameters.parts,
            kind=train.optimizer,
            lr=train.lr,
            flow_lr_scale=train.flow_lr_scale,
            betas=train.betas,
            weight_decay=train.weight_decay,
        )
        self.average = AveragedWeights(self.parameters, train.ema) if train.ema else None
        self.loss = task.loss(device)
        self.state = TrainingState(
            self.model, self.parameters, self.optimizer, self.average, rank=rank, device=device
        )

    def _build_model(self, task: Task, ranks_per_node: int | None) -> nn.Module:
        train, seed = self._config.train, self._config.run.seed
        starts = train.init_weights or ()

        def build() -> nn.Module:
            torch.manual_seed(seed)
            return task.build()

        def load(model: nn.Module) -> None:
            for start in starts:
                logger.info("%s: %s", start, load_weights(model, start))

        model = parallelize(
            build,
            self._device,
            load=load if starts else None,
            compile_blocks=train.compile,
            reshard=train.reshard,
            ranks_per_node=ranks_per_node,
        )
        torch.manual_seed(seed * 1_000_003 + self._rank + 1)
        return model

    def step_over(self, layout: StepLayout, unpack: Unpack) -> TrainingStep:
        """Build the training step for batches divided by `share`; `unpack` prepares each one."""
        train = self._config.train
        return TrainingStep(
            self.model,
            self.parameters,
            self.loss,
            self.optimizer,
            device=self._device,
            layout=layout,
            rank=self._rank,
            reshard=train.reshard,
            precision=train.precision,
            clip_norm=train.clip_norm,
            unpack=unpack,
        )

    @contextlib.contextmanager
    def final_weights(self) -> Iterator[nn.Module]:
        """Inside the block, the model has its averaged weights, if the run averages them."""
        swapped = (
            contextlib.nullcontext() if self.average is None else self.average.in_place_of_weights()
        )
        with swapped:
            yield self.model
            reshard_all(self.model)
