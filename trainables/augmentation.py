"""Random changes of images: the table of all, and what is drawn for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.config import TrialConfig
from trainables.operators import affine, as_floats, brightness, contrast, crop, erase, flip, saturation
from trainables.seeds import seed_for
from trainables.trivial_augment import trivial_augment

CROP_TRIES = 10
"""Boxes that are drawn for an image before the center crop is taken, as in torchvision's `RandomResizedCrop`."""

ERASED_SHARE, ERASED_SHAPE = (0.02, 0.33), (0.3, 3.3)
"""Share of the area and height by width of a box that is erased, from and to, as in torchvision's `RandomErasing`."""
ERASING_TRIES = 10
"""Boxes that are drawn before nothing is erased."""

Change = Callable[[Tensor, Tensor, TrialConfig], Tensor]


def crop_boxes(height: Tensor, width: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """Draw boxes in images of these heights and widths, int64 [B] each: top, left, height, width, int64 [4, B].

    They have at least the share `smallest` of the area, and 3:4 to 4:3, and are drawn as torchvision's
    `RandomResizedCrop` draws them: the first of ten tries that fits, else the center.
    """
    area, shape = torch.rand(2, CROP_TRIES, len(height), generator=generator)
    area = (smallest + area * (1 - smallest)) * height * width
    ratio = torch.exp((2 * shape - 1) * math.log(4 / 3))
    tall, wide = torch.round(torch.sqrt(area / ratio)).long(), torch.round(torch.sqrt(area * ratio)).long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.long().argmax(0, keepdim=True)  # 0 where none fits
    tall, wide, any_fits = tall.gather(0, first)[0], wide.gather(0, first)[0], fits.any(0)
    center = [torch.minimum(one, (other * 4 / 3).round().long()) for one, other in ((height, width), (width, height))]
    tall, wide = torch.where(any_fits, tall, center[0]), torch.where(any_fits, wide, center[1])
    down, right = torch.rand(2, len(height), generator=generator)
    top = torch.where(any_fits, (down * (height - tall + 1)).long(), (height - tall) // 2)
    left = torch.where(any_fits, (right * (width - wide + 1)).long(), (width - wide) // 2)
    return torch.stack((top, left, tall, wide))


def erasing_boxes(drawn: Tensor, height: int, width: int) -> Tensor:
    """Return boxes in images of this height and width: top, left, height, width, int64 [4, B].

    They have a share of the area and a shape that is drawn uniformly, the shape in its logarithm, as in torchvision's
    `RandomErasing` (Zhong et al. 2017, arXiv 1708.04896): the first of the tries that is smaller than the image both
    ways, else a box of no pixels.

    Args:
        drawn: uniform numbers in [0, 1), float32 [2 · ERASING_TRIES + 2, B].
    """
    share, shape = drawn[:-2].view(2, ERASING_TRIES, -1)
    area = (ERASED_SHARE[0] + share * (ERASED_SHARE[1] - ERASED_SHARE[0])) * (height * width)
    low, high = map(math.log, ERASED_SHAPE)
    ratio = torch.exp(low + shape * (high - low))
    tall, wide = torch.sqrt(area * ratio).round().long(), torch.sqrt(area / ratio).round().long()
    fits = (tall < height) & (wide < width)
    first = fits.long().argmax(0, keepdim=True)  # 0 where none fits
    tall, wide = (length.gather(0, first)[0] * fits.any(0) for length in (tall, wide))
    down, right = drawn[-2:]
    return torch.stack(((down * (height - tall + 1)).long(), (right * (width - wide + 1)).long(), tall, wide))


# The table


@dataclass(frozen=True)
class Augmentation:
    """A random change of images.

    `change` takes images [B, C, H, W], uint8 or floats in [0, 1], its random numbers, float32 [draws, B] on the same
    device, and the configuration. It returns images of the same shape, uint8 or floats in [0, 1].
    """

    fields: tuple[str, ...]  # of the configuration; it is applied unless all of them are zero
    draws: int  # uniform numbers in [0, 1) for an image
    change: Change
    on_cpu: bool = False  # it takes its numbers on the CPU, as it is decided by them which operations run
    normalized: bool = False  # it takes and returns normalized images, floats


def _flip(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
    return flip(images, drawn[0] < 0.5)


def _crop(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
    top, left = (drawn * (2 * config.crop_padding + 1)).long().unbind()
    return crop(images, config.crop_padding, top, left)


def _affine(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
    height, width = images.shape[2:]
    angle, right, down, zoom = (2 * drawn - 1).unbind()
    shift_x, shift_y = right * config.shift * width, down * config.shift * height
    return affine(as_floats(images), angle * config.rotation, shift_x, shift_y, 1 + zoom * config.scale)


def _color(adjust: Callable[[Tensor, Tensor], Tensor], field: str) -> Change:
    """Return the change that adjusts images by factors of 1 ± the value of `field`."""

    def change(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
        return adjust(as_floats(images), 1 + (2 * drawn[0] - 1) * getattr(config, field))

    return change


def _trivial_augment(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
    return trivial_augment(images, drawn)


def _erasing(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
    boxes = erasing_boxes(drawn[1:], images.shape[2], images.shape[3])
    return erase(images, boxes * (drawn[0] < config.erasing))


AUGMENTATIONS = {
    "flip": Augmentation(("flip",), 1, _flip),
    "crop": Augmentation(("crop_padding",), 2, _crop),
    "affine": Augmentation(("rotation", "shift", "scale"), 4, _affine),
    "brightness": Augmentation(("brightness",), 1, _color(brightness, "brightness")),
    "contrast": Augmentation(("contrast",), 1, _color(contrast, "contrast")),
    "saturation": Augmentation(("saturation",), 1, _color(saturation, "saturation")),
    "trivial_augment": Augmentation(("trivial_augment",), 3, _trivial_augment, on_cpu=True),
    "erasing": Augmentation(("erasing",), 1 + 2 * ERASING_TRIES + 2, _erasing, normalized=True),
}
"""The random changes, in the order in which they are applied and draw their numbers; a new one goes to the end.

Random resized crops are not among them, as they decide which part of a picture is seen. They come first
(`views.random_frames`), and draw their numbers before these, but only where they are switched on. Neither is what mixes
a batch's images, which comes last (`mixing`). `TrialConfig` marks the fields of all.
"""


FROM_STREAM = 10
"""Numbers per image that `draw` takes from the generator in every version; all others come from a second generator."""


def augment(images: Tensor, drawn: Tensor, config: TrialConfig, normalized: bool = False) -> Tensor:
    """Apply the configuration's random changes of images [B, C, H, W] that are not yet normalized, or those after that.

    `drawn` are the numbers from `draw`: the same ones are drawn whatever is switched on, so one augmentation does not
    change another's. See `Augmentation` for the images.
    """
    numbers = drawn.split_with_sizes([augmentation.draws for augmentation in AUGMENTATIONS.values()])
    for augmentation, mine in zip(AUGMENTATIONS.values(), numbers, strict=True):
        if augmentation.normalized == normalized and any(getattr(config, field) for field in augmentation.fields):
            there = mine if augmentation.on_cpu else mine.to(images.device, non_blocking=True)
            images = augmentation.change(images, there, config)
    return images


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Draw the uniform numbers of all augmentations for `count` images: float32 [draws, count], in the table's order.

    An augmentation that is added at the table's end leaves the others' numbers as they were, in this batch and in later
    ones: the generator always moves on by FROM_STREAM numbers per image; the first image's seed the second generator.
    """
    drawn = torch.rand(FROM_STREAM, count, generator=generator)
    beyond = sum(augmentation.draws for augmentation in AUGMENTATIONS.values()) - FROM_STREAM
    if beyond == 0:
        return drawn
    second = torch.Generator().manual_seed(seed_for("augmentation", *map(repr, drawn[:, 0].tolist())))
    return torch.cat((drawn, torch.rand(beyond, count, generator=second)))
