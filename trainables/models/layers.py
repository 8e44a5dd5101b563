"""The layers of a model, counted back from its head: learning rates fall along them, and fine-tuning unfreezes them.

A layer is a block of the net, such as a residual block or an encoder block, or a single convolution or linear layer
between blocks. Norms belong to the layer before them, and parameters that stand alone (class tokens, position
embeddings) to the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from trainables.models.heads import head_of

MOST = 0.9
"""Share of the base's weights from which on a module is no layer of it, but the base itself, in a wrapper."""

LINEAR = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.Bilinear, nn.RNNBase)
"""The modules whose weights map inputs linearly."""


def depths(model: nn.Module) -> dict[str, int]:
    """Return name of parameter → its layer, counted back from the head, which is 0; the last layer of the base is 1.

    For models that have it, layers are those of timm's `group_matcher`, which published settings of layer-wise rates
    refer to.
    """
    head = {id(parameter) for parameter in head_of(model).parameters()}
    base = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in head}
    numbers = _numbers_of_timm(model) if hasattr(model, "group_matcher") else _numbers(model, base)
    last = max((number for name, number in numbers.items() if name not in base), default=len(base))
    return {name: max(1, last - numbers[name]) if name in base else 0 for name, _ in model.named_parameters()}


def linear_weights(model: nn.Module) -> set[int]:
    """Return the ids of the weights of convolutions and linear layers, but for those that timm's models would spare."""
    owners = (module for module in model.modules() if isinstance(module, LINEAR))
    weights = {id(p) for module in owners for name, p in module.named_parameters() if p.ndim > 1 and "bias" not in name}
    spared: set[str] = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    return weights - {id(p) for name, p in model.named_parameters() if name in spared}


def _numbers_of_timm(model: Any) -> dict[str, int]:
    """Return name of parameter → number of its layer, as timm counts them."""
    from timm.models import group_parameters

    return dict(group_parameters(model, model.group_matcher(coarse=False), reverse=True))


def _numbers(model: nn.Module, base: dict[str, nn.Parameter]) -> dict[str, int]:
    """Return name of parameter → number of its layer, in the order in which modules were added to the model."""
    names = {id(parameter): name for name, parameter in base.items()}
    numbers: dict[str, int] = {}
    last = -1
    for parameters, is_layer in _pieces(model, MOST * sum(p.numel() for p in base.values())):
        found = [p for p in parameters if id(p) in names and names[id(p)] not in numbers]
        last += is_layer and any(p.ndim > 1 for p in found)
        numbers |= {names[id(p)]: max(last, 0) for p in found}
    return {name: numbers.get(name, last + 1) for name, _ in model.named_parameters()}


def _pieces(module: nn.Module, most: float) -> Iterator[tuple[list[nn.Parameter], bool]]:
    """Yield the parameters of each piece of `module`, and whether it is a module rather than what stands alone.

    A submodule with more than `most` parameters is taken to pieces as well.
    """
    yield list(module.parameters(recurse=False)), False
    for child in module.children():
        if _is_stage(child, most):
            yield from _pieces(child, most)
        else:
            yield list(child.parameters()), True


def _is_stage(module: nn.Module, most: float) -> bool:
    """Return whether a module is a row of layers, not a layer.

    torchvision's convolutions with their norm are `nn.Sequential` too, but of modules without further ones.
    """
    children = list(module.children())
    of_blocks = any(list(child.children()) for child in children)
    row = isinstance(module, nn.ModuleList | nn.ModuleDict) or type(module) is nn.Sequential
    loop = [type(child) for child in children] == [nn.ModuleList]  # MaxViT's stages
    return row or loop or (isinstance(module, nn.Sequential) and of_blocks) or _large(module, most)


def _large(module: nn.Module, most: float) -> bool:
    """Return whether a module has submodules and more than `most` parameters."""
    return bool(list(module.children())) and sum(p.numel() for p in module.parameters()) > most
