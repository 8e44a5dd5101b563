"""Stochastic depth: in training, each row skips some residual branches, the later ones more often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.model_names import is_timm
from trainables.models import factories

BRANCHES = {
    "CifarBlock": ("bn2",),
    "BasicBlock": ("bn2",),
    "Bottleneck": ("bn3",),
    "ResBottleneckBlock": ("f",),
    "EncoderBlock": ("dropout", "mlp"),
    "InvertedResidual": ("conv", "block"),
    "_InvertedResidual": ("layers",),
}
"""Class of a residual block, built in or torchvision's, without stochastic depth → the modules that end a branch."""

DROPPING = {"StochasticDepth": "p", "DropPath": "drop_prob"}
"""Class of torchvision's and timm's modules that drop a branch → their attribute with the probability."""

CONDITIONS = ("use_res_connect", "apply_residual")
"""Attributes of blocks that say whether their input is added to their branch."""


def set_stochastic_depth(config: TrialConfig, model: nn.Module) -> None:
    """Let each row of a batch skip the l-th of L residual branches with probability `stochastic_depth` · l / L.

    These are the linearly falling survival probabilities of Huang et al. 2016 (arXiv 1603.09382, section 3); what is
    left of a branch is divided by its own, so evaluation stays as it is. With 0 the model does: torchvision's
    EfficientNet, ConvNeXt, Swin and MaxViT then have the probabilities that they were published with. timm's models and
    a user's that take the value spread it over their branches themselves.

    Raises:
        ConfigError: the model has no residual branches that are known.
    """
    if config.stochastic_depth == 0 or factories.takes(config.model, "stochastic_depth"):
        return
    dropping = [m for m in model.modules() if hasattr(m, DROPPING.get(type(m).__name__, " "))]
    if is_timm(config.model) and dropping:
        return
    branches = dropping or list(_branches(model))
    if not branches:
        raise ConfigError(factories.no_branches(config))
    for number, module in enumerate(branches, start=1):
        probability = config.stochastic_depth * number / len(branches)
        if dropping:
            setattr(module, DROPPING[type(module).__name__], probability)
        else:
            module.register_forward_hook(Drop(probability))


class Drop:
    """A hook that zeroes a module's output for some rows in training, and divides that of the others by their share."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Return the output [B, …] with rows dropped."""
        if not module.training:
            return output
        kept = 1 - self.probability
        rows = output.new_empty((len(output),) + (1,) * (output.ndim - 1)).bernoulli_(kept)
        return output * rows.div_(kept)


def _branches(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose output is a residual branch's, from inputs to outputs."""
    for block in model.modules():
        adds = all(getattr(block, name, True) for name in CONDITIONS)
        ends = BRANCHES.get(type(block).__name__, ()) if adds else ()
        yield from (getattr(block, end) for end in ends if hasattr(block, end))
