"""Models that are made elsewhere: the user's own, and timm's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables import errors
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.model_names import is_user_model
from trainables.models import factories
from trainables.models.heads import DenseHead, Head
from trainables.user_code import told


def _foreign_model(config: TrialConfig, classes: int, image_size: int, initialized: bool) -> nn.Module:
    """A model of the user's own or of timm's, whose last layer becomes a `Head` with the weights that it had."""
    if config.stem == "small":
        raise ConfigError(f"stem=small: model={config.model} is used as it is made; leave stem out")
    replaced = config.head_width > 0 or config.freeze  # then the head brings the dropout: a frozen base has none
    dropout = 0.0 if replaced else config.dropout
    model, drops = _made(config, classes, image_size, dropout, initialized)
    name = _last_layer(config, model, classes, image_size)
    if name is None:
        needing = {n: getattr(config, n) for n in ("head_width", "freeze", "head_l1", "head_l2")}
        needing |= {} if drops else {"dropout": config.dropout}
        asked = [f"{field}={str(value).lower()}" for field, value in needing.items() if value]
        if asked:
            raise ConfigError(
                f"model={config.model} does not end in an nn.Linear with {classes} outputs, which "
                f"{', '.join(asked)} needs: set it to 0 or false, or let the model end so"
            )
        return model
    old: Any = model.get_submodule(name)
    if config.head_width:
        model.set_submodule(name, DenseHead(old.in_features, config.head_width, classes, config.dropout))
    else:
        own = config.dropout if replaced or not drops else 0.0
        head = Head(old.in_features, classes, own, bias=old.bias is not None)
        head.load_state_dict(old.state_dict())
        model.set_submodule(name, head)
    return model


def _made(
    config: TrialConfig, classes: int, image_size: int, dropout: float, initialized: bool
) -> tuple[nn.Module, bool]:
    """The model in training mode, and whether it takes care of dropout itself."""
    pretrained = config.weights == "imagenet"
    if pretrained and is_user_model(config.model):
        raise ConfigError(f"model={config.model} has no published weights: use weights=none, or a file")
    try:
        model, drops = factories.make(config, classes, image_size, dropout, pretrained and initialized)
    except ConfigError as error:
        if pretrained and initialized:
            raise errors.WeightsError(f"{error}; with weights=none it needs no network") from error
        raise
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model={config.model} made a {type(model).__name__}; a torch.nn.Module is needed")
    return model.train(), drops


def _last_layer(config: TrialConfig, model: nn.Module, classes: int, image_size: int) -> str | None:
    """The name of the linear layer whose output is the model's, by trying it; None if there is none.

    Raises:
        ConfigError: the model cannot take a batch, or does not make logits of it.
    """
    made: dict[str, Any] = {}

    def remember(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: made.update({name: output})

    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(remember(name)) for name, module in linear]
    images = torch.zeros(2, 3, image_size, image_size)
    unfit = f"model={config.model} cannot take a batch {list(images.shape)} (another image_size may do)"
    with told(unfit), torch.no_grad():
        logits: Any = model.eval()(images)
    model.train()
    for hook in hooks:
        hook.remove()
    shape = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if shape != [2, classes]:
        raise ConfigError(
            f"model={config.model} makes {shape} of a batch {list(images.shape)}; logits [2, {classes}] are needed"
        )
    return next((name for name, output in made.items() if output is logits), None)
