"""Models under one `build`: torchvision's classifiers, He et al.'s residual nets, a plain CNN, timm's, the user's own.

The dropout and the head are the trial's. The stem is torchvision's (designed for 224 px), or a small one for
images that would shrink to a pixel or two in it:

* a first convolution of more than 3×3 becomes 3×3 (new weights) with stride 1; a max pooling after it is removed;
* vision transformers cut the image into at least 8 × 8 patches, Swin transformers into at least 16 × 16;
* VGG, the CIFAR ResNets and the plain CNN keep the resolution anyway, so they stay as they are;
* so do timm's and the user's models: their functions are given the size of the images.

State dicts keep torchvision's names. torchvision is imported only for its own models: that takes over a second.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from torch import nn

from trainables.config import TrialConfig
from trainables.errors import look_up
from trainables.model_names import BUILT_IN_MODELS, is_timm, is_user_model
from trainables.models import weights
from trainables.models.filling import Filled, Filling
from trainables.models.foreign import foreign_model
from trainables.models.residual import set_stochastic_depth

Builder = Callable[[TrialConfig, int, int, Filling | None], nn.Module]


def build(config: TrialConfig, classes: int, image_size: int, initialized: bool = True) -> nn.Module:
    """Build the configuration's model, in training mode, on the CPU: float [B, 3, H, W] → logits [B, classes].

    Weights are drawn from torch's global generator, which the caller has seeded. `image_size` is the smaller
    of H and W. `initialized=False` leaves the configuration's initial weights out, for a caller who loads all weights.

    Raises:
        ConfigError: there is no such model, it cannot take images of this size, it has no published weights, or no
            residual branches where `stochastic_depth` needs them.
        WeightsError: the initial weights are missing, damaged or of another model.
    """
    if initialized:
        return build_filled(config, classes, image_size)[0]
    model = builder_of(config.model)(config, classes, image_size, None)
    set_stochastic_depth(config, model)
    return model


def build_filled(config: TrialConfig, classes: int, image_size: int) -> tuple[nn.Module, Filled | None]:
    """Build the configuration's model, as `build` does, and return what its initial weights filled; None without any.

    Raises:
        ConfigError: as `build`.
        WeightsError: as `build`, or they lack tensors of a base that is frozen.
    """
    builder = builder_of(config.model)
    filling = Filling(config, weights.read(config.model, config.weights)) if config.weights != "none" else None
    model = builder(config, classes, image_size, filling)
    set_stochastic_depth(config, model)
    return model, None if filling is None else filling.finish(model)


def builder_of(name: str) -> Builder:
    """Return the function that builds model `name`; raise ConfigError if there is none."""
    if is_timm(name) or is_user_model(name):
        return foreign_model
    module, _, function = look_up(BUILT_IN_MODELS, name, "model").partition(":")
    builder: Builder = getattr(import_module(f"trainables.models.{module}"), function)
    return builder
