"""The head of a model, the layers that compute logits from features; a frozen model trains nothing else."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from trainables.config import TrialConfig


def head_of(model: nn.Module) -> nn.Module:
    """Return the layers that compute logits from features, which are new for every data set."""
    kinds: tuple[tuple[type[nn.Module], ...], ...] = ((DenseHead,), (Head,), (nn.Linear, nn.Conv2d))
    candidates = ([module for module in model.modules() if isinstance(module, kind)] for kind in kinds)
    return next(modules for modules in candidates if modules)[-1]


def with_head(model: nn.Module, head: nn.Module) -> nn.Module:
    """Return a model with `head` in place of the head of `model`, which stays as it is and shares everything else."""
    return copy.deepcopy(model, {id(head_of(model)): head, **shared_base(model)})


def shared_base(model: nn.Module) -> dict[int, Any]:
    """Return a memo for `copy.deepcopy` by which a copy of `model` shares its base: tensors, and modules of them."""
    head = head_of(model)
    name = next(name for name, module in model.named_modules() if module is head)
    above = {name[:end] for end in range(len(name) + 1) if end in (0, len(name)) or name[end] == "."}
    own = {id(tensor) for tensor in head.state_dict(keep_vars=True).values()}
    modules = (
        module for path, module in model.named_modules() if path not in above and not path.startswith(f"{name}.")
    )
    tensors = (tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in own)
    return {id(shared): shared for shared in (*modules, *tensors)}


def freeze_base(model: nn.Module) -> None:
    """Compute gradients for the head only."""
    model.requires_grad_(False)
    head_of(model).requires_grad_(True)


def set_training(config: TrialConfig, model: nn.Module) -> None:
    """Switch to training mode; of a frozen model the head only, so that batch norm keeps its statistics."""
    model.train(not config.freeze)
    if config.freeze:
        head_of(model).train()


def has_dropout(config: TrialConfig) -> bool:
    """Return whether dropout is the head's own, not the base's: a base that does not learn is in evaluation mode."""
    return config.head_width > 0 or config.freeze or config.head_epochs > 0


class DenseHead(nn.Module):
    """A hidden layer with ReLU, dropout, then the last layer."""

    def __init__(self, inputs: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, width)
        self.output = Head(width, classes, dropout)

    def forward(self, features: Tensor) -> Tensor:
        return self.output(functional.relu(self.hidden(features)))  # type: ignore[no-any-return]


class Head(nn.Linear):
    """Dropout, then a linear layer; one module, so that the head's names stay torchvision's."""

    def __init__(self, inputs: int, classes: int, dropout: float, bias: bool = True) -> None:
        super().__init__(inputs, classes, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.dropout(features))


def new_head(inputs: int, classes: int, config: TrialConfig) -> nn.Module:
    """Return a head with new weights: float [B, inputs] → logits [B, classes]."""
    if config.head_width:
        return DenseHead(inputs, config.head_width, classes, config.dropout)
    return Head(inputs, classes, config.dropout)
