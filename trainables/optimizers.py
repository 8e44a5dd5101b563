"""Optimiser and learning-rate schedule of a configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainables.config import TrialConfig

ONE_CYCLE_START = 1 / 25  # of the peak; torch.optim.lr_scheduler.OneCycleLR's defaults
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
CYCLIC_LOW = 0.1  # of the peak
CYCLIC_EPOCHS = 4  # a full cycle, about; Smith 2017 (arXiv 1506.01186) advises half-cycles of 2 epochs and more
PLATEAU_FACTOR = 0.1
PLATEAU_PATIENCE = 2  # epochs without a lower validation loss


def build_optimizer(config: TrialConfig, model: nn.Module) -> Optimizer:
    """Weight decay acts on weights of two and more dimensions: not on biases and norms (He et al. 2019, 1812.01187).

    Momentum begins at zero, which is what torch's first step comes to. Left to itself, torch's fused SGD takes
    uninitialised memory for it when float16 overflows in the first step, and keeps that.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (config.momentum, 0.999)
    if config.optimizer == "sgd":
        sgd = SGD(groups, config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
        if config.momentum > 0:
            sgd.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in parameters})
        return sgd
    if config.optimizer == "adam":
        return Adam(groups, config.lr, betas=betas, fused=True)
    return AdamW(groups, config.lr, betas=betas, fused=True)


class Schedule:
    """The learning rate at every step. All schedules but `plateau` are functions of the step alone.

    They are torch's, step for step, and span `max_epochs`: `OneCycleLR`, `CosineAnnealingLR`, triangular `CyclicLR`
    (whole cycles, so that it ends low, and no warm-up), `ReduceLROnPlateau` on the validation loss. The warm-up is
    `LinearLR`'s, and of the one-cycle schedule its rise.
    """

    def __init__(self, config: TrialConfig, optimizer: Optimizer, steps_per_epoch: int) -> None:
        self._config = config
        self._optimizer = optimizer
        self._total = config.max_epochs * steps_per_epoch
        self._half_cycle = self._total / max(1, round(config.max_epochs / CYCLIC_EPOCHS)) / 2  # steps
        self._plateau = ReduceLROnPlateau(optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
        self._reduced = 1.0  # what plateaus have left of the rate

    def set_rate(self, step: int) -> float:
        """Set the optimiser's learning rate for optimizer step `step`, counted from 0, and return it."""
        rate = self._config.lr * self._factor(step) * self._reduced
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def epoch_ended(self, val_loss: float) -> None:
        """Let a plateau schedule see the validation loss."""
        if self._config.schedule == "plateau":
            rate = self._optimizer.param_groups[0]["lr"]
            self._plateau.step(val_loss)
            self._reduced *= self._optimizer.param_groups[0]["lr"] / rate

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plateau = {name: getattr(self._plateau, name) for name in ("best", "num_bad_epochs")}
        return {"reduced": self._reduced, **(plateau if self._config.schedule == "plateau" else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reduced = state["reduced"]
        for name in ("best", "num_bad_epochs"):
            setattr(self._plateau, name, state.get(name, getattr(self._plateau, name)))

    def _factor(self, step: int) -> float:
        """Share of the peak rate at `step`."""
        rise = self._config.warmup * self._total  # steps
        if self._config.schedule == "cyclic":
            return self._triangle(step)
        if self._config.schedule == "one_cycle":
            return self._one_cycle(step, peak=rise - 1)
        if step < rise:
            return (step + 1) / (rise + 1)
        return _cosine(1.0, 0.0, (step - rise) / (self._total - rise)) if self._config.schedule == "cosine" else 1.0

    def _one_cycle(self, step: int, peak: float) -> float:
        """Up to the peak rate at step `peak`, down to next to nothing at the last."""
        if step < peak:
            return _cosine(ONE_CYCLE_START, 1.0, step / peak)
        return _cosine(1.0, ONE_CYCLE_END, (step - peak) / (self._total - 1 - peak))

    def _triangle(self, step: int) -> float:
        position = step / self._half_cycle % 2
        return CYCLIC_LOW + (1 - CYCLIC_LOW) * (position if position <= 1 else 2 - position)


def clip_gradients(parameters: Iterable[torch.Tensor], largest: float) -> None:
    """Scale the gradients so that their joint 2-norm is at most `largest`; 0 leaves them."""
    if largest > 0:
        nn.utils.clip_grad_norm_(parameters, largest)


def _cosine(start: float, end: float, done: float) -> float:
    """Half a cosine wave from `start` (done = 0) to `end` (done = 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
