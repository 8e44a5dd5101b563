"""A model in training, with its optimizer and schedule. A trial has one; with folds, one for each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables.batches import memory_format, steps_an_epoch
from trainables.config import TrialConfig
from trainables.models import build, heads, view_mean
from trainables.optimizers import Schedule, build_optimizer
from trainables.seeds import seed_for


@dataclass
class Learner:
    """A model in training, and the weights of its best epoch so far."""

    config: TrialConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    device: torch.device
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # those that training changes, in the best epoch
    on_features: bool = False  # batches hold features, the outputs of the frozen base, in place of images

    @classmethod
    def start(
        cls, config: TrialConfig, classes: int, image_size: int, epoch_rows: int, device: torch.device
    ) -> Learner:
        """Return a new learner, with weights drawn from the seed of `config`."""
        torch.manual_seed(seed_for(config.seed, "weights"))
        model = build.build(config, classes, image_size)
        model = model.to(device)
        if device.type != "cpu":  # a CPU's kernels rearrange weights anyway, and its fused optimizers would copy them
            model = model.to(memory_format=memory_format(config))
        if config.freeze:
            heads.freeze_base(model)
        optimizer = build_optimizer(config, model)
        scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        schedule = Schedule(config, optimizer, steps_an_epoch(epoch_rows, config.batch_size))
        return cls(config, model, optimizer, schedule, scaler, device)

    @property
    def network(self) -> nn.Module:
        """The part of the model that computes logits from a batch in training."""
        return heads.head_of(self.model) if self.on_features else self.model

    @property
    def predictor(self) -> nn.Module:
        """The same for a prediction, which may be a mean over views; features are their mean already."""
        return self.network if self.on_features else view_mean.evaluated(self.config, self.model)

    def kept_weights(self) -> dict[str, Tensor]:
        """Return all weights, those that were kept at the best epoch among them, under the model's names."""
        return self.model.state_dict() | self.best_weights

    def keep_weights(self) -> None:
        """Keep the present weights as those of the best epoch."""
        self.best_weights = {name: tensor.detach().clone() for name, tensor in self._changing().items()}

    def tensors(self, everything: bool) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint; without a frozen base's, which do not change, unless `everything`."""
        weights = self.model.state_dict() if everything else self._changing()
        tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        entries = self.optimizer.state_dict()["state"]
        return tensors | {f"optimizer.{i}.{name}": t for i, entry in entries.items() for name, t in entry.items()}

    def values(self) -> dict[str, Any]:
        """Return the plain JSON values of a checkpoint."""
        return {"schedule": self.schedule.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take over `tensors` and `values` of a learner of the same configuration.

        The optimizer's tensors get the memory layout of their parameters: fused steps go through memory in order and
        would otherwise pair each weight of a channels-last model with another one's momentum.
        """
        device, parameters = self.device, [p for group in self.optimizer.param_groups for p in group["params"]]
        self.model.load_state_dict(self.model.state_dict() | part(tensors, "model."))
        self.best_weights = {name: tensor.to(device) for name, tensor in part(tensors, "best.").items()}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            moment = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
            entries.setdefault(int(index), {})[key] = moment
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.schedule.load_state_dict(values["schedule"])
        self.scaler.load_state_dict(values["scaler"])

    def _changing(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name."""
        changing = heads.head_of(self.model) if self.config.freeze else self.model
        changed = {id(tensor) for tensor in changing.state_dict(keep_vars=True).values()}
        weights = self.model.state_dict(keep_vars=True).items()
        return {name: tensor for name, tensor in weights if id(tensor) in changed}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
