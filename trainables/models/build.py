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

from pathlib import Path

from torch import nn

from trainables.config import TrialConfig
from trainables.model_names import TORCHVISION, is_built_in
from trainables.models import weights
from trainables.models.convolutions import with_small_outputs
from trainables.models.foreign import _foreign_model
from trainables.models.small_nets import _own_model
from trainables.models.torchvision_models import _torchvision_model


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
        weights.load_from_file(model, Path(config.weights))
    return with_small_outputs(model)


# He et al. 2015, arXiv:1512.03385, section 4.2


# What published comparisons begin with


# Models that are made elsewhere


# torchvision's models
