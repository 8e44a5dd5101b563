"""Models under one `build`: torchvision's classifiers, He et al.'s residual nets, a plain CNN, timm's, the user's own.

The dropout and the head are the trial's. The stem is torchvision's (made for 224 px) or a small one, for
images that would be a pixel or two after it:

* a first convolution of more than 3×3 becomes 3×3 (new weights), its stride 1; a max pooling after it goes;
* vision transformers cut the image into at least 8 × 8 patches, Swin transformers into at least 16 × 16;
* VGG, the CIFAR ResNets and the plain CNN keep the resolution anyway and stay as they are;
* so do models that are made elsewhere: whoever makes them is told the size of the images.

State dicts keep torchvision's names. torchvision is imported only for its own models: it takes over a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from trainables.config import ConfigError, TrialConfig
from trainables.model_names import CIFAR_RESNETS, TORCHVISION, is_built_in, is_own
from trainables.models import factories, weights
from trainables.models.convolutions import with_small_outputs
from trainables.user_code import told

SMALL_IMAGES = 64  # pixels; below, stem=auto is the small one


def build(config: TrialConfig, classes: int, image_size: int, initialized: bool = True) -> nn.Module:
    """The configuration's model, in training mode, on the CPU: float [B, 3, H, W] → logits [B, classes].

    Weights are drawn from torch's global generator, which the caller has seeded. `image_size` is the smaller
    of H and W. `initialized=False` leaves the configuration's initial weights out, for a caller who loads all weights.

    Raises:
        ConfigError: the model cannot take images of this size, or has no published weights.
        WeightsError: the initial weights are missing, damaged or of another model.
    """
    if config.model in TORCHVISION:
        model = _torchvision_model(config, classes, image_size, initialized)
    elif not is_built_in(config.model):
        model = _foreign_model(config, classes, image_size, initialized)
    else:
        model = _own_model(config, classes, image_size)
    if initialized and config.weights not in ("none", "imagenet"):
        weights.load_own(model, Path(config.weights))
    return with_small_outputs(model)


def head_of(model: nn.Module) -> nn.Module:
    """The layers that make logits of features: those that every data set needs anew."""
    kinds: tuple[tuple[type[nn.Module], ...], ...] = ((DenseHead,), (Head,), (nn.Linear, nn.Conv2d))
    found = ([module for module in model.modules() if isinstance(module, kind)] for kind in kinds)
    return next(modules for modules in found if modules)[-1]


def freeze_base(model: nn.Module) -> None:
    """Have gradients for the head alone."""
    model.requires_grad_(False)
    head_of(model).requires_grad_(True)


def set_training(config: TrialConfig, model: nn.Module) -> None:
    """Training mode; of a frozen model for its head alone, so that batch norm keeps its statistics."""
    model.train(not config.freeze)
    if config.freeze:
        head_of(model).train()


class DenseHead(nn.Module):
    """A layer with ReLU, dropout, then the last layer."""

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


# He et al. 2015, arXiv:1512.03385, section 4.2


class _Block(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (option A): strided, new channels zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """Depth 6n + 2: three stages of n blocks with 16, 32 and 64 channels; takes images of any size."""

    def __init__(self, depth: int, make_head: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = [16, *(width for width in (16, 32, 64) for _ in range((depth - 2) // 6))]
        self.blocks = nn.Sequential(*(_Block(*pair) for pair in pairwise(channels)))
        self.fc = make_head(64)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # arXiv:1502.01852, equation 10
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        return self.fc(self.blocks(x).mean((2, 3)))  # type: ignore[no-any-return]


# What published comparisons begin with


class SimpleCNN(nn.Module):
    """Three times convolution, ReLU and max pooling; flattened, a dense layer with ReLU, the head (with its dropout).

    What is flattened is at most 4 × 4 pixels, larger images' being averaged: the dense layer stays small.
    """

    def __init__(self, image_size: int, make_head: Callable[[int], nn.Module]) -> None:
        super().__init__()
        pairs = pairwise((3, 32, 64, 128))
        layers = ((nn.Conv2d(*pair, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for pair in pairs)
        self.features = nn.Sequential(*chain.from_iterable(layers))
        side = min(image_size // 8, 4)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.hidden = nn.Linear(128 * side**2, 128)
        self.fc = make_head(128)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.features(images)).flatten(1)
        return self.fc(functional.relu(self.hidden(x)))  # type: ignore[no-any-return]


def _head(inputs: int, classes: int, config: TrialConfig) -> nn.Module:
    if config.head_width:
        return DenseHead(inputs, config.head_width, classes, config.dropout)
    return Head(inputs, classes, config.dropout)


def _own_model(config: TrialConfig, classes: int, image_size: int) -> nn.Module:
    if config.weights == "imagenet":
        message = f"model={config.model} has no published ImageNet weights; use weights=none or another model"
        raise ConfigError([message])
    if config.model in CIFAR_RESNETS:
        return CifarResNet(int(config.model.removeprefix("resnet")), lambda inputs: _head(inputs, classes, config))
    if image_size < 8:
        message = (
            f"model={config.model} cannot take images of {image_size}×{image_size} pixels; use images of 8 or more"
        )
        raise ConfigError([message])
    return SimpleCNN(image_size, lambda inputs: _head(inputs, classes, config))


# Models that are made elsewhere


def _foreign_model(config: TrialConfig, classes: int, image_size: int, initialized: bool) -> nn.Module:
    """A model of the user's own or of timm's, whose last layer becomes a `Head` with the weights that it had."""
    if config.stem == "small":
        raise ConfigError([f"stem=small: model={config.model} is used as it is made; leave stem out"])
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
                [
                    f"model={config.model} does not end in an nn.Linear with {classes} outputs, which "
                    f"{', '.join(asked)} needs: set it to 0 or false, or let the model end so"
                ]
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
    if pretrained and is_own(config.model):
        raise ConfigError([f"model={config.model} has no published weights: use weights=none, or a file"])
    try:
        model, drops = factories.make(config, classes, image_size, dropout, pretrained and initialized)
    except ConfigError as error:
        if pretrained and initialized:
            raise weights.WeightsError(f"{error}; with weights=none it needs no network") from error
        raise
    if not isinstance(model, nn.Module):
        raise ConfigError([f"model={config.model} made a {type(model).__name__}; a torch.nn.Module is needed"])
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
            [f"model={config.model} makes {shape} of a batch {list(images.shape)}; logits [2, {classes}] are needed"]
        )
    return next((name for name, output in made.items() if output is logits), None)


# torchvision's models


def _torchvision_model(config: TrialConfig, classes: int, image_size: int, initialized: bool) -> nn.Module:
    from torchvision.models import get_model, get_model_weights

    small = config.stem == "small" or (config.stem == "auto" and image_size < SMALL_IMAGES)
    pretrained = get_model_weights(config.model).DEFAULT if config.weights == "imagenet" else None
    with _size_problem(config, image_size, small):
        model: nn.Module = get_model(config.model, **_arguments(config.model, image_size, small, pretrained))
    if pretrained and initialized:  # before the surgery below, so that what it leaves alone keeps its weights
        weights.load_imagenet(model, pretrained)
    _replace_head(model, classes, config)
    with _size_problem(config, image_size, small):
        _fit_stem(model, image_size, small, pretrained is not None)
        _try_size(model, image_size)
    return model


def _arguments(name: str, image_size: int, small: bool, pretrained: Any) -> dict[str, Any]:
    """What some families must be told: one output, their input's normalisation, the size to build for."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True, "transform_input": pretrained is not None}
    if name == "maxvit_t":  # it reckons with a stem of stride 2
        return {"input_size": (image_size * (2 if small else 1),) * 2}
    if name.startswith("vit_") and pretrained:
        return {"image_size": pretrained.meta["min_size"][0]}
    return {}


@contextmanager
def _size_problem(config: TrialConfig, image_size: int, small: bool) -> Iterator[None]:
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        stem, advice = ("small", "") if small else ("imagenet", "stem=small, ")
        message = (
            f"model={config.model} with the {stem} stem cannot take images of {image_size}×{image_size} "
            f"pixels ({str(error).splitlines()[0]}); use {advice}larger images, or a model such as resnet18"
        )
        raise ConfigError([message]) from error


def _try_size(model: nn.Module, image_size: int) -> None:
    """One forward of shapes only (12–120 ms): raises what the model raises for images of this size."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    meta = {name: tensor.to("meta") for name, tensor in tensors}
    with torch.no_grad():
        functional_call(model.eval(), meta, (torch.empty(1, 3, image_size, image_size, device="meta"),))
    model.train()


def _replace_head(model: nn.Module, classes: int, config: TrialConfig) -> None:
    """A new last layer. The classifier's own dropouts take `dropout`; if it has none, the layer brings it."""
    modules = dict(model.named_modules())
    name = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    old: Any = modules[name]
    parts = (name.partition(".")[0], "dropout")  # GoogLeNet and Inception have theirs beside the head
    dropouts = [m for key, m in modules.items() if isinstance(m, nn.Dropout) and key.partition(".")[0] in parts]
    own = config.head_width > 0 or config.freeze  # a frozen base has no dropout: it is in evaluation mode
    for module in dropouts:
        module.p = 0.0 if own else config.dropout
    if isinstance(old, nn.Conv2d):  # SqueezeNet's head, which has a dropout of its own
        if own:
            raise ConfigError(
                [f"{config.model} has a convolution for a head: use head_width=0 and freeze=false, or another model"]
            )
        head: nn.Module = nn.Conv2d(old.in_channels, classes, 1)
    elif dropouts and not own:
        head = nn.Linear(old.in_features, classes)
    else:
        head = _head(old.in_features, classes, config)
    model.set_submodule(name, head)


def _fit_stem(model: nn.Module, image_size: int, small: bool, pretrained: bool) -> None:
    from torchvision.models import VGG, SwinTransformer, VisionTransformer

    if isinstance(model, VisionTransformer):
        patch = _patch(image_size, 8, model.patch_size) if small else model.patch_size
        _fit_vision_transformer(model, image_size, patch, pretrained)
    elif small and isinstance(model, SwinTransformer):
        old = model.features[0][0]
        patch = _patch(image_size, 16, old.stride[0])
        if patch != old.stride[0]:
            model.features[0][0] = nn.Conv2d(3, old.out_channels, patch, patch)
    elif small and not isinstance(model, VGG):
        _small_stem(model)


def _small_stem(model: nn.Module) -> None:
    """The first convolution becomes 3×3 with stride 1, and the max pooling of the stem goes."""
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
    """The largest divisor of the size up to `largest` that makes at least `least` patches a side; else 1."""
    fitting = (p for p in range(1, largest + 1) if image_size % p == 0 and image_size // p >= least)
    return max(fitting, default=1)


def _fit_vision_transformer(model: Any, image_size: int, patch: int, pretrained: bool) -> None:
    """Patches and position embeddings for the size: pretrained ones are interpolated, others drawn anew."""
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
    if pretrained:
        key = "encoder.pos_embedding"
        embedding = interpolate_embeddings(image_size, patch, {key: embedding})[key]
    else:
        embedding = torch.empty(1, model.seq_length, model.hidden_dim).normal_(std=0.02)
    model.encoder.pos_embedding = nn.Parameter(embedding)
