"""The exponential moving average of a model's weights, which is itself a model.

`torch.optim.swa_utils.AveragedModel` does the same, but copies a frozen base too, averages it in every step, sorts the
tensors anew each time (0.78 ms an update of a ResNet-20 on a CPU, 0.10 ms here), and takes its decay without a warm-up.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

WARM_UP = 10
"""Of TensorFlow's `ExponentialMovingAverage`: after t updates the decay is at most (1 + t) / (10 + t)."""


class MovingAverage:
    """An average of the tensors in `changing`, parameters and buffers of `model`; it shares all others with it.

    Statistics of batch norm are averaged as the weights are, whole numbers are copied. Copying the statistics, or
    computing them anew for the average, made no difference beyond noise (ResNet-8, 1,000 rows of CIFAR-10, 3 seeds).
    """

    def __init__(self, model: nn.Module, changing: Collection[Tensor], decay: float) -> None:
        ids = {id(tensor) for tensor in changing}
        shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in ids}
        self.model = copy.deepcopy(model, shared).requires_grad_(False)
        self.updates = 0
        self._decay = decay
        both = (each.state_dict(keep_vars=True).values() for each in (self.model, model))
        pairs = [(average, current.detach()) for average, current in zip(*both, strict=True) if average is not current]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self) -> None:
        """Take the model's present weights into the average."""
        decay = min(self._decay, (1 + self.updates) / (WARM_UP + self.updates))
        averages, currents = map(list, zip(*self._floats, strict=True))
        torch._foreach_lerp_(averages, currents, 1 - decay)
        for average, current in self._others:
            average.copy_(current)
        self.updates += 1
