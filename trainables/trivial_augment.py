"""TrivialAugment (Müller and Hutter 2021, arXiv 2103.10158): each image gets one random operation of random strength.

Operations and strengths are those of torchvision's `TrivialAugmentWide`, of the paper's "wide" space. There each image
is changed alone; here, the images of a batch that get the same operation are changed together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.operators import (
    affine,
    as_bytes,
    as_floats,
    brightness,
    contrast,
    from_nhwc,
    posterize,
    saturation,
    sharpness,
    shear,
    solarize,
    to_nhwc,
)

STRENGTHS = 31  # of each operation
FURTHEST = 32  # pixels of a translation, at most; and no further than an image's side

Operator = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Operation:
    """A change of uint8 images [B, C, H, W] with strengths float32 [B]; it returns uint8 of the same shape.

    The strengths are evenly spaced from `weakest` to `strongest`, and may be negative if it is `signed`.
    """

    change: Operator
    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False


def _on_floats(change: Operator) -> Operator:
    return lambda images, strength: as_bytes(change(as_floats(images), strength))


def _moved(images: Tensor, strength: Tensor, down: bool) -> Tensor:
    height, width = images.shape[2:]
    pixels = (strength * min(FURTHEST, height if down else width)).trunc()
    none = torch.zeros_like(pixels)
    return affine(images, none, none if down else pixels, pixels if down else none, torch.ones_like(pixels))


def _turned(images: Tensor, strength: Tensor) -> Tensor:
    none = torch.zeros_like(strength)
    return affine(images, -strength, none, none, torch.ones_like(strength))


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import autocontrast  # here, as few trials need it

    stretched: Tensor = autocontrast(images.contiguous())  # 18 times as fast as on channels last
    return stretched


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import equalize

    equalized: Tensor = equalize(images)
    return equalized


def _factor(change: Operator) -> Operation:
    """Return the operation that changes images by factors from 0.01 to 1.99."""
    return Operation(_on_floats(lambda images, strength: change(images, 1 + strength)), 0, 0.99, signed=True)


OPERATIONS = {
    "identity": Operation(lambda images, strength: images),
    "shear_x": Operation(
        _on_floats(lambda images, strength: shear(images, strength, torch.zeros_like(strength))), 0, 0.99, signed=True
    ),
    "shear_y": Operation(
        _on_floats(lambda images, strength: shear(images, torch.zeros_like(strength), strength)), 0, 0.99, signed=True
    ),
    "translate_x": Operation(_on_floats(lambda images, strength: _moved(images, strength, False)), 0, 1, signed=True),
    "translate_y": Operation(_on_floats(lambda images, strength: _moved(images, strength, True)), 0, 1, signed=True),
    "rotate": Operation(_on_floats(_turned), 0, 135, signed=True),
    "brightness": _factor(brightness),
    "color": _factor(saturation),
    "contrast": _factor(contrast),
    "sharpness": _factor(sharpness),
    "posterize": Operation(lambda images, strength: posterize(images, strength.round()), 8, 2),
    "solarize": Operation(lambda images, strength: solarize(images, 255 * strength), 1, 0),
    "autocontrast": Operation(_autocontrast),
    "equalize": Operation(_equalize),
}
"""The operations, each as likely as any other, in torchvision's order."""


def trivial_augment(images: Tensor, drawn: Tensor) -> Tensor:
    """Apply one operation to each of the images [B, C, H, W], uint8 or floats in [0, 1]; return uint8.

    `drawn` are uniform numbers in [0, 1), float32 [3, B] on the CPU: for operation, strength and sign.
    """
    chosen = (drawn[0] * len(OPERATIONS)).long()
    step = (drawn[1] * STRENGTHS).long()
    sign = torch.where(drawn[2] < 0.5, -1.0, 1.0)
    stored = to_nhwc(as_bytes(images)).clone()
    for number, operation in enumerate(OPERATIONS.values()):
        rows = (chosen == number).nonzero()[:, 0]
        if operation is not OPERATIONS["identity"] and len(rows):
            strengths = torch.linspace(operation.weakest, operation.strongest, STRENGTHS)[step[rows]]
            strengths = (strengths * sign[rows] if operation.signed else strengths).to(images.device, non_blocking=True)
            there = rows.to(images.device, non_blocking=True)
            changed = operation.change(from_nhwc(stored.index_select(0, there)), strengths)
            stored.index_copy_(0, there, to_nhwc(changed))
    return from_nhwc(stored)
