"""The optimizer and the learning-rate schedule of a configuration."""

from __future__ import annotations

import copy
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainables.config import TrialConfig
from trainables.errors import look_up
from trainables.models import layers

ONE_CYCLE_START = 1 / 25  # of the peak; the defaults of torch.optim.lr_scheduler.OneCycleLR
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
CYCLIC_LOW = 0.1  # of the peak
CYCLIC_EPOCHS = 4  # a full cycle, about; Smith 2017 (arXiv 1506.01186) advises half-cycles of 2 epochs and more
PLATEAU_FACTOR = 0.1
PLATEAU_PATIENCE = 2  # epochs without a lower validation loss

WRAPPED = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict", "_cuda_graph_capture_health_check")
"""Methods of torch's optimizers that are wrapped for its compiler."""

Groups = list[dict[str, Any]]
Kind = TypeVar("Kind", bound=Optimizer)


def build_optimizer(config: TrialConfig, model: nn.Module) -> Optimizer:
    """Build the optimizer of the parameters that learn, in groups of one weight decay and one `factor` of the rate.

    Weight decay acts on the weights of convolutions and linear layers alone, not on biases and norms (He et al. 2019,
    arXiv 1812.01187), nor on embeddings, layer scales and tables of position biases. The factor of a layer is
    `lr_decay` to the power of its depth (Clark et al. 2020, arXiv 2003.10555), and `base_lr` for all but the head.
    """
    decaying, factors = layers.linear_weights(model), _factors(config, model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, decays): [] for decays in (True, False)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factors[name], id(parameter) in decaying), []).append(parameter)
    described = [
        {"params": parameters, "factor": factor, "weight_decay": config.weight_decay if decays else 0.0}
        for (factor, decays), parameters in groups.items()
    ]
    return look_up(OPTIMIZERS, config.optimizer, "optimizer")(config, described)


def _factors(config: TrialConfig, model: nn.Module) -> Mapping[str, float]:
    """Return name of parameter → factor of its learning rate."""
    if config.lr_decay == 1 and config.base_lr == 1:  # models without a head have no other
        return defaultdict(lambda: 1.0)
    depths = layers.depths(model)
    return {name: config.lr_decay**depth * (config.base_lr if depth else 1.0) for name, depth in depths.items()}


def _without_compiler(kind: type[Kind]) -> type[Kind]:
    """Return an optimizer like `kind` that does not import torch's compiler.

    Methods of torch's optimizers tell the compiler to leave them alone. For that they import it, which takes longer
    than a small trial, and 100 MB. What they do is the same.
    """
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED if hasattr(kind, name)}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(plain["step"])})


_SGD, _Adam, _AdamW = _without_compiler(SGD), _without_compiler(Adam), _without_compiler(AdamW)


def _sgd(config: TrialConfig, groups: Groups) -> Optimizer:
    """Build an SGD whose momentum begins at zero, which is what torch's first step comes to.

    Left to itself, torch's fused SGD takes uninitialized memory for it when float16 overflows in the first step, and
    keeps that.
    """
    sgd = _SGD(groups, config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
    if config.momentum > 0:
        sgd.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for group in groups for p in group["params"]})
    return sgd


def _adam(config: TrialConfig, groups: Groups) -> Optimizer:
    return _Adam(groups, config.lr, betas=(config.momentum, 0.999), fused=True)


def _adamw(config: TrialConfig, groups: Groups) -> Optimizer:
    return _AdamW(groups, config.lr, betas=(config.momentum, 0.999), fused=True)


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters that an optimizer changes, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def moments(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the optimizer's state, by their parameter's name in `model`, a dot and their own name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {f"{names[id(p)]}.{key}": t for p, entry in optimizer.state.items() for key, t in entry.items()}


def load_moments(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take over tensors that `moments` returned for an optimizer of the same configuration.

    They get the memory layout of their parameters: fused steps go through memory in order and would otherwise pair each
    weight of a channels-last model with another one's momentum. Earlier versions numbered the parameters: those of
    two and more dimensions, then the others.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    former = sorted(named.values(), key=lambda parameter: parameter.ndim <= 1)
    positions = {id(p): i for i, p in enumerate(parameters_of(optimizer))}
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        parameter = former[int(owner)] if owner.isdecimal() else named[owner]
        moment = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        entries.setdefault(positions[id(parameter)], {})[key] = moment
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def joined(optimizers: Sequence[Optimizer]) -> Optimizer:
    """Return an optimizer that steps the parameters of several at once, which have equal groups and equal rates.

    It begins with what they remember of their parameters, and gives it back by `hand_back`.
    """
    joint = copy.copy(optimizers[0])
    groups = zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)
    joint.param_groups = [
        {**alike[0], "params": [parameter for group in alike for parameter in group["params"]]} for alike in groups
    ]
    joint.state = defaultdict(dict, {p: entry for each in optimizers for p, entry in each.state.items()})
    return joint


def hand_back(joint: Optimizer, optimizers: Sequence[Optimizer]) -> None:
    """Give optimizers what the joint one remembers of their parameters."""
    for optimizer in optimizers:
        optimizer.state.update({p: joint.state[p] for p in parameters_of(optimizer) if p in joint.state})


OPTIMIZERS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}


@dataclass(frozen=True)
class Span:
    """The steps that a schedule spans."""

    head: int  # steps of the epochs in which the head learns alone, before the schedule
    steps: int  # of all other epochs
    warmup: float  # steps in which the rate rises
    half_cycle: float  # steps from one end of the cyclic schedule to the other

    @classmethod
    def of(cls, config: TrialConfig, steps_per_epoch: int) -> Span:
        head_epochs = 0 if config.freeze else min(config.head_epochs, config.max_epochs)
        epochs = config.max_epochs - head_epochs
        steps, cycles = epochs * steps_per_epoch, max(1, round(epochs / CYCLIC_EPOCHS))
        return cls(head_epochs * steps_per_epoch, steps, config.warmup * steps, steps / cycles / 2)

    def factor(self, schedule: str, step: int) -> float:
        """Return the share of the peak rate at a step, counted from 0; that of the head alone is the peak."""
        share = look_up(SCHEDULES, schedule, "schedule")
        return 1.0 if step < self.head else share(step - self.head, self)


def _constant(step: int, span: Span) -> float:
    """Rise linearly during the warm-up, then stay at the peak."""
    return (step + 1) / (span.warmup + 1) if step < span.warmup else 1.0


def _cosine(step: int, span: Span) -> float:
    """Rise linearly during the warm-up, then fall to zero along half a cosine wave."""
    if step < span.warmup:
        return _constant(step, span)
    return _half_wave(1.0, 0.0, (step - span.warmup) / (span.steps - span.warmup))


def _one_cycle(step: int, span: Span) -> float:
    """Rise to the peak during the warm-up, then fall to almost nothing, each along half a cosine wave."""
    peak = span.warmup - 1
    if step < peak:
        return _half_wave(ONE_CYCLE_START, 1.0, step / peak)
    return _half_wave(1.0, ONE_CYCLE_END, (step - peak) / (span.steps - 1 - peak))


def _cyclic(step: int, span: Span) -> float:
    """Rise and fall linearly, over and over; there is no warm-up."""
    position = step / span.half_cycle % 2
    return CYCLIC_LOW + (1 - CYCLIC_LOW) * (position if position <= 1 else 2 - position)


def _half_wave(start: float, end: float, progress: float) -> float:
    """Return the value of half a cosine wave from `start` (progress = 0) to `end` (progress = 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Callable[[int, Span], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "cyclic": _cyclic,
    "plateau": _constant,  # times what the validation losses have left of it
}
"""Name → the share of the peak rate at a step, counted from 0."""


class Schedule:
    """The learning rate at every step. All schedules but `plateau` are functions of the step alone.

    They are torch's, step for step, and span `max_epochs`: `OneCycleLR`, `CosineAnnealingLR`, triangular `CyclicLR`
    (whole cycles, so that it ends low, and no warm-up), `ReduceLROnPlateau` on the validation loss. The warm-up is
    that of `LinearLR`, and in the one-cycle schedule its rise.
    """

    def __init__(self, config: TrialConfig, optimizer: Optimizer, steps_per_epoch: int) -> None:
        self._config = config
        self._optimizer = optimizer
        self._span = Span.of(config, steps_per_epoch)
        self._plateau = ReduceLROnPlateau(optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
        self._reduced = 1.0  # share of the rate that plateaus have left

    def set_rate(self, step: int) -> float:
        """Set the learning rates for optimizer step `step`, counted from 0; return that of the head."""
        rate = self._config.lr * self._span.factor(self._config.schedule, step) * self._reduced
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        return rate

    def epoch_ended(self, val_loss: float) -> None:
        """Show the validation loss to a plateau schedule; the others do not depend on it."""
        if self._config.schedule == "plateau":
            group = max(self._optimizer.param_groups, key=lambda group: group["lr"])  # torch keeps very small rates
            rate = group["lr"]
            self._plateau.step(val_loss)
            self._reduced *= group["lr"] / rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        plateau = {name: getattr(self._plateau, name) for name in ("best", "num_bad_epochs")}
        return {"reduced": self._reduced, **(plateau if self._config.schedule == "plateau" else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned."""
        self._reduced = state["reduced"]
        for name in ("best", "num_bad_epochs"):
            setattr(self._plateau, name, state.get(name, getattr(self._plateau, name)))


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> None:
    """Scale the gradients so that their joint 2-norm is at most `largest`; 0 leaves them."""
    if largest > 0:
        nn.utils.clip_grad_norm_(parameters, largest)
