"""The models that a configuration may name. Importing this imports no torch: a name is checked without it."""

import re

# He et al. 2015, section 4.2: residual nets of depth 6n+2 for 32×32 images.
CIFAR_RESNETS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")

# torchvision's classifiers; a test holds this list against the installed torchvision.
TORCHVISION = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s",
    "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1",
    "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32",
    "wide_resnet101_2", "wide_resnet50_2",
)  # fmt: skip

BUILT_IN_MODELS = {
    "simple_cnn": "small_nets:simple_cnn",
    **dict.fromkeys(CIFAR_RESNETS, "small_nets:cifar_resnet"),
    **dict.fromkeys(TORCHVISION, "torchvision_models:torchvision_model"),
}
"""Name → `module:function` in `trainables.models`, imported when it is needed: (config, classes, image_size,
initialized) → the model, as of `build`, without a user's weights."""


MODELS = tuple(BUILT_IN_MODELS)

WITHOUT_BRANCHES = ("alexnet", "densenet", "googlenet", "inception", "shufflenet", "simple_cnn", "squeezenet", "vgg")
"""Beginnings of the names of built-in models without residual branches, which stochastic depth needs."""

TIMM = "timm:"  # stands before the name of one of timm's models
HUB = "hf-hub:"  # stands before the name of weights on the Hugging Face Hub


def is_built_in(name: str) -> bool:
    """Return whether `name` is in the table of built-in models."""
    return name in BUILT_IN_MODELS


def is_user_model(name: str) -> bool:
    """Return whether `name` looks like `package.module:factory`: a function of the user's builds the model."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None and not name.startswith(TIMM)


def is_timm(name: str) -> bool:
    """Return whether `name` looks like `timm:NAME` or `timm:NAME.TAG`."""
    return re.fullmatch(rf"{TIMM}\w[\w.]*", name) is not None
