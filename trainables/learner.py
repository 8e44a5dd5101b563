"""A model in training, with its optimizer and schedule. A trial has one; with folds, one for each of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trainables import unfreezing
from trainables.batches import memory_format, steps_an_epoch
from trainables.config import TrialConfig
from trainables.loss_scale import LossScaler
from trainables.models import build, heads, view_mean
from trainables.models.convolutions import with_small_outputs
from trainables.models.filling import Filled
from trainables.moving_average import MovingAverage
from trainables.optimizers import Schedule, build_optimizer, load_moments, moments, parameters_of
from trainables.seeds import seed_for


@dataclass(frozen=True)
class Fold:
    """The rows of one model of a trial, int64 on the CPU, as in `TrialRows`."""

    train_rows: Tensor
    scored_rows: Tensor
    class_weights: Tensor | None = None  # float32 [classes], on the device
    log_prior: Tensor | None = None  # the same; see `losses.log_prior`


@dataclass
class Learner:
    """A model in training, and the weights of its best epoch so far."""

    config: TrialConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: LossScaler
    device: torch.device
    average: MovingAverage | None = None  # of the weights; the model that is scored, and that the trial ends with
    filled: Filled | None = None  # what the initial weights filled; None without any
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # those that training changes, in the best epoch
    on_features: bool = False  # batches hold features, the outputs of the frozen base, in place of images

    @classmethod
    def start(
        cls, config: TrialConfig, classes: int, image_size: int, epoch_rows: int, device: torch.device
    ) -> Learner:
        """Return a new learner, with weights drawn from the seed of `config`."""
        torch.manual_seed(seed_for(config.seed, "weights"))
        model, filled = build.build_filled(config, classes, image_size)
        model = model.to(device)
        if device.type == "cpu":
            with_small_outputs(model)
        else:  # a CPU's kernels rearrange weights anyway, and its fused optimizers would copy them
            model = model.to(memory_format=memory_format(config))
        if config.freeze:
            heads.freeze_base(model)
        learner = cls._of(config, model, epoch_rows, device)
        learner.filled = filled
        return learner

    def twin(self, epoch_rows: int) -> Learner:
        """Return another new learner that begins with the same weights; a frozen base is shared, not copied."""
        shared = heads.shared_base(self.model) if self.config.freeze else {}
        return self._of(self.config, copy.deepcopy(self.model, shared), epoch_rows, self.device)

    @classmethod
    def _of(cls, config: TrialConfig, model: nn.Module, epoch_rows: int, device: torch.device) -> Learner:
        optimizer = build_optimizer(config, model)
        scaler = LossScaler(device, model, enabled=config.precision == "float16")
        schedule = Schedule(config, optimizer, steps_an_epoch(epoch_rows, config.batch_size))
        average = MovingAverage(model, changing(config, model).values(), config.ema) if config.ema else None
        return cls(config, model, optimizer, schedule, scaler, device, average)

    @property
    def network(self) -> nn.Module:
        """The part of the model that computes logits from a batch in training."""
        return self.head if self.on_features else self.model

    @cached_property
    def head(self) -> nn.Module:
        """The head of the model, found once: that takes longer than a step on features."""
        return heads.head_of(self.model)

    @cached_property
    def _scored_head(self) -> nn.Module:
        return heads.head_of(self.scored_model)

    def begin_epoch(self, epoch: int) -> None:
        """Switch what learns in `epoch` to training mode, and count its steps anew."""
        self.scaler.begin_epoch()
        if self.on_features:
            self.head.train()
        else:
            unfreezing.set_training(self.config, self.model, epoch, self.learning)

    @cached_property
    def learning(self) -> list[nn.Parameter]:
        """The parameters that the optimizer changes."""
        return parameters_of(self.optimizer)

    @property
    def scored_model(self) -> nn.Module:
        """The model that is scored and kept: the moving average, if there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def predictor(self) -> nn.Module:
        """The part of it that predicts from a batch, maybe a mean over views; features are their mean already."""
        return self._scored_head if self.on_features else view_mean.evaluated(self.config, self.scored_model)

    def kept_weights(self) -> dict[str, Tensor]:
        """Return all weights, those that were kept at the best epoch among them, under the model's names."""
        return self.scored_model.state_dict() | self.best_weights

    def keep_weights(self) -> None:
        """Keep the present weights as those of the best epoch."""
        self.best_weights = {name: tensor.detach().clone() for name, tensor in self._kept.items()}

    @cached_property
    def _kept(self) -> dict[str, Tensor]:
        """The tensors of the scored model that training changes, always the same ones."""
        return changing(self.config, self.scored_model)

    def tensors(self, *, everything: bool, newest_is_best: bool) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint; without a frozen base's, which do not change, unless `everything`.

        Where the newest weights are those of the best epoch, they are there once, as the best ones.
        """
        weights = self.model.state_dict() if everything else changing(self.config, self.model)
        twice = self.best_weights if newest_is_best and self.average is None else {}
        tensors = {f"model.{name}": tensor for name, tensor in weights.items() if name not in twice}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in moments(self.optimizer, self.model).items()}
        if self.average is None:
            return tensors
        averages = changing(self.config, self.average.model)
        return tensors | {f"average.{name}": tensor for name, tensor in averages.items()}

    def values(self) -> dict[str, Any]:
        """Return the plain JSON values of a checkpoint."""
        updates = {} if self.average is None else {"averaged": self.average.updates}
        return {"schedule": self.schedule.state_dict(), "scaler": self.scaler.state_dict(), **updates}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take over `tensors` and `values` of a learner of the same configuration."""
        weights = part(tensors, "best.") | part(tensors, "model.")
        self.model.load_state_dict(self.model.state_dict() | weights)
        self.best_weights = {name: tensor.to(self.device) for name, tensor in part(tensors, "best.").items()}
        load_moments(self.optimizer, self.model, part(tensors, "optimizer."))
        self.schedule.load_state_dict(values["schedule"])
        self.scaler.load_state_dict(values["scaler"])
        if self.average is not None:
            self.average.model.load_state_dict(self.average.model.state_dict() | part(tensors, "average."))
            self.average.updates = values["averaged"]


def changing(config: TrialConfig, model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the model that training changes, by name."""
    learning = heads.head_of(model) if config.freeze else model
    ids = {id(tensor) for tensor in learning.state_dict(keep_vars=True).values()}
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in ids}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
