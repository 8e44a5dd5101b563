"""torchvision's classifiers, with the trial's head and a stem that suits the size of the images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from trainables import autos
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.models import heads, inputs
from trainables.models.filling import Filling
from trainables.models.heads import new_head

POSITIONS = "encoder.pos_embedding"  # of a vision transformer


def torchvision_model(config: TrialConfig, classes: int, image_size: int, filling: Filling | None) -> nn.Module:
    """Build one of torchvision's classifiers; see `build.build`."""
    from torchvision.models import get_model

    small = autos.stem(config, image_size) == "small"
    with _size_problem(config, image_size, small):
        model: nn.Module = get_model(config.model, **_arguments(config, image_size, small))
    _replace_head(model, classes, config)
    if filling:  # before the surgery below, so that what it leaves alone keeps its weights
        _take_positions(model, filling)
        filling.fill(model, head=False)
    with _size_problem(config, image_size, small):
        _fit_stem(model, image_size, small, filling)
        _try_size(model, image_size)
    return model


def _arguments(config: TrialConfig, image_size: int, small: bool) -> dict[str, Any]:
    """Return the keyword arguments that some families need: one output, normalization of inputs, the image size."""
    if config.model in inputs.CONVERTING:
        return {"aux_logits": False, "init_weights": True, "transform_input": config.weights == "imagenet"}
    if config.model == "maxvit_t":  # it expects a stem of stride 2
        return {"input_size": (image_size * (2 if small else 1),) * 2}
    return {}


def _take_positions(model: Any, filling: Filling) -> None:
    """Give a vision transformer as many position embeddings as its weights have; they are interpolated later."""
    filling.map_names(model.state_dict())
    known = filling.tensors.get(POSITIONS)
    if known is not None and hasattr(model, "seq_length") and known.dim() == 3 and known.shape[2] == model.hidden_dim:
        model.encoder.pos_embedding = nn.Parameter(torch.empty_like(known))


@contextmanager
def _size_problem(config: TrialConfig, image_size: int, small: bool) -> Iterator[None]:
    """Turn what a model raises for images of a wrong size into a ConfigError."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        stem, advice = ("small", "") if small else ("imagenet", "stem=small, ")
        message = (
            f"model={config.model} with the {stem} stem cannot take images of {image_size}×{image_size} "
            f"pixels ({str(error).splitlines()[0]}); use {advice}larger images, or a model such as resnet18"
        )
        raise ConfigError(message) from error


def _try_size(model: nn.Module, image_size: int) -> None:
    """Run one forward pass of shapes only (12–120 ms), which raises what the model raises for images of this size."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    meta = {name: tensor.to("meta") for name, tensor in tensors}
    with torch.no_grad():
        functional_call(model.eval(), meta, (torch.empty(1, 3, image_size, image_size, device="meta"),))
    model.train()


def _replace_head(model: nn.Module, classes: int, config: TrialConfig) -> None:
    """Replace the last layer. The classifier's dropouts get the trial's `dropout`; if it has none, the head does."""
    modules = dict(model.named_modules())
    name = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    old: Any = modules[name]
    parts = (name.partition(".")[0], "dropout")  # GoogLeNet and Inception have it beside the head
    dropouts = [m for key, m in modules.items() if isinstance(m, nn.Dropout) and key.partition(".")[0] in parts]
    in_head = heads.has_dropout(config)
    for module in dropouts:
        module.p = 0.0 if in_head else config.dropout
    if isinstance(old, nn.Conv2d):  # SqueezeNet's head, with its dropout
        if in_head:
            raise ConfigError(
                f"model={config.model} ends in a convolution: use head_width=0, freeze=false and "
                "head_epochs=0, or another model"
            )
        head: nn.Module = nn.Conv2d(old.in_channels, classes, 1)
    elif dropouts and not in_head:
        head = nn.Linear(old.in_features, classes)
    else:
        head = new_head(old.in_features, classes, config)
    model.set_submodule(name, head)


def _fit_stem(model: nn.Module, image_size: int, small: bool, filling: Filling | None) -> None:
    """Fit the first layers to the size of the images; the docstring of `build` says how."""
    from torchvision.models import VGG, SwinTransformer, VisionTransformer

    if isinstance(model, VisionTransformer):
        patch = _patch(image_size, 8, model.patch_size) if small else model.patch_size
        _fit_vision_transformer(model, image_size, patch, filling)
    elif small and isinstance(model, SwinTransformer):
        old = model.features[0][0]
        patch = _patch(image_size, 16, old.stride[0])
        if patch != old.stride[0]:
            model.features[0][0] = nn.Conv2d(3, old.out_channels, patch, patch)
    elif small and not isinstance(model, VGG):
        _small_stem(model)


def _small_stem(model: nn.Module) -> None:
    """Make the first convolution 3×3 with stride 1, and remove the max pooling of the stem."""
    name, old = next((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if old.kernel_size == (3, 3):
        old.stride = old.padding = (1, 1)
    else:
        new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=old.bias is not None)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        model.set_submodule(name, new)
    for pool in [name for name, m in model.named_modules() if isinstance(m, nn.MaxPool2d)][:1]:
        model.set_submodule(pool, nn.Identity())


def _patch(image_size: int, least: int, largest: int) -> int:
    """Return the largest divisor of the size, up to `largest`, that gives at least `least` patches a side; else 1."""
    fitting = (p for p in range(1, largest + 1) if image_size % p == 0 and image_size // p >= least)
    return max(fitting, default=1)


def _fit_vision_transformer(model: Any, image_size: int, patch: int, filling: Filling | None) -> None:
    """Fit patches and position embeddings to the size: pretrained ones are interpolated, others drawn anew."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if image_size % patch:
        less = image_size // patch * patch
        raise ValueError(f"{image_size} pixels are not a whole number of patches of {patch}, {less + patch} are")
    if patch != model.patch_size:
        model.conv_proj = nn.Conv2d(3, model.hidden_dim, patch, patch)
        nn.init.trunc_normal_(model.conv_proj.weight, std=math.sqrt(1 / (3 * patch**2)))
        nn.init.zeros_(model.conv_proj.bias)
    model.image_size, model.patch_size, model.seq_length = image_size, patch, (image_size // patch) ** 2 + 1
    embedding = model.encoder.pos_embedding.detach()
    if embedding.shape[1] == model.seq_length:
        return
    if filling and POSITIONS in filling.tensors:
        embedding = interpolate_embeddings(image_size, patch, {POSITIONS: embedding})[POSITIONS]
    else:
        embedding = torch.empty(1, model.seq_length, model.hidden_dim).normal_(std=0.02)
    model.encoder.pos_embedding = nn.Parameter(embedding)
    if filling and POSITIONS in filling.tensors:
        filling.mark(model.encoder.pos_embedding)
