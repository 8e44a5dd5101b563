"""Models that are not built in: the user's, and timm's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.model_names import is_timm
from trainables.models import factories, heads
from trainables.models.filling import Filling
from trainables.models.heads import DenseHead, Head
from trainables.user_code import errors_in


def foreign_model(config: TrialConfig, classes: int, image_size: int, filling: Filling | None) -> nn.Module:
    """Build a model of the user's or of timm's; its last layer becomes a `Head` with the same weights.

    A head that learns alone, on a base of timm's, begins with those of `nn.Linear`: timm's are so large for some
    families that accuracy suffers (by 0.05 with EfficientNet-Lite0 on 796 pictures: benchmarks/frozen_head.py).

    For arguments and errors see `build.build`.
    """
    if config.stem == "small":
        raise ConfigError(f"stem=small: model={config.model} is used as its function builds it; leave stem out")
    in_head = heads.has_dropout(config)
    model, has_dropout = _construct(config, classes, image_size, 0.0 if in_head else config.dropout, filling)
    name = _last_layer(config, model, classes, image_size)
    if name is None:
        _refuse_head_settings(config, classes, has_dropout)
        return model
    old: Any = model.get_submodule(name)
    if config.head_width:
        model.set_submodule(name, DenseHead(old.in_features, config.head_width, classes, config.dropout))
    else:
        dropout = config.dropout if in_head or not has_dropout else 0.0
        head = Head(old.in_features, classes, dropout, bias=old.bias is not None)
        if not is_timm(config.model) or not (config.freeze or config.head_epochs):
            head.load_state_dict(old.state_dict())  # else small weights: timm draws some up to 1/√classes, which stay
        model.set_submodule(name, head)
    return model


def _refuse_head_settings(config: TrialConfig, classes: int, has_dropout: bool) -> None:
    """Raise ConfigError for fields that act on the last layer, of a model that does not end in a linear one."""
    settings = {name: getattr(config, name) for name in ("head_width", "freeze", "head_l1", "head_l2")}
    settings |= {name: getattr(config, name) for name in ("head_epochs", "unfreeze_epochs")}
    settings |= {name: getattr(config, name) for name in ("base_lr", "lr_decay") if getattr(config, name) != 1}
    settings |= {} if has_dropout else {"dropout": config.dropout}
    needing = [f"{field}={str(value).lower()}" for field, value in settings.items() if value]
    if needing:
        raise ConfigError(
            f"model={config.model} does not end in an nn.Linear with {classes} outputs, which "
            f"{', '.join(needing)} needs: leave it out, or let the model end in one"
        )


def _construct(
    config: TrialConfig, classes: int, image_size: int, dropout: float, filling: Filling | None
) -> tuple[nn.Module, bool]:
    """Return the model in training mode, and whether it applies `dropout` itself."""
    before = torch.get_rng_state()
    model, has_dropout = factories.make(config, classes, image_size, dropout)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model={config.model} returned a {type(model).__name__}; a torch.nn.Module is needed")
    if filling and is_timm(config.model) and _is_to_convert(model, filling):
        torch.set_rng_state(before)
        model = _filled_by_timm(config, classes, image_size, dropout, filling, model)
    return model.train(), has_dropout


def _is_to_convert(model: Any, filling: Filling) -> bool:
    """Return whether timm's `model` has tensors beside its head that the weights do not have as they are."""
    head = model.pretrained_cfg.get("classifier") or ()
    names = (head,) if isinstance(head, str) else tuple(head)
    state = model.state_dict()
    filling.map_names(state)
    return any(not filling.fits(name, tensor) and not name.startswith(names) for name, tensor in state.items())


def _filled_by_timm(
    config: TrialConfig, classes: int, image_size: int, dropout: float, filling: Filling, drawn: nn.Module
) -> nn.Module:
    """Build timm's model again, with weights that it converts to today's names and to the size of the images.

    Args:
        drawn: the same model with random weights: what the other one has differently was loaded.
    """
    before = drawn.state_dict()
    try:
        model, _ = factories.make(config, classes, image_size, dropout, filling.tensors)
    except ConfigError:  # another net's; `Filling.finish` says which tensors differ
        return drawn
    for name, tensor in model.state_dict(keep_vars=True).items():
        if filling.fits(name, tensor) or not torch.equal(tensor, before[name]):
            filling.mark(tensor)
    return model  # type: ignore[no-any-return]


def _last_layer(config: TrialConfig, model: nn.Module, classes: int, image_size: int) -> str | None:
    """Return the name of the linear layer whose output is the model's, found by a forward pass; None if there is none.

    Raises:
        ConfigError: the model cannot take a batch, or does not return logits.
    """
    outputs: dict[str, Any] = {}

    def remember(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({name: output})

    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(remember(name)) for name, module in linear]
    images = torch.zeros(2, 3, image_size, image_size)
    unfit = f"model={config.model} cannot take a batch {list(images.shape)} (another image_size may do)"
    with errors_in(unfit), torch.no_grad():
        logits: Any = model.eval()(images)
    model.train()
    for hook in hooks:
        hook.remove()
    shape = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if shape != [2, classes]:
        raise ConfigError(
            f"model={config.model} returns {shape} for a batch {list(images.shape)}; logits [2, {classes}] are needed"
        )
    return next((name for name, output in outputs.items() if output is logits), None)
