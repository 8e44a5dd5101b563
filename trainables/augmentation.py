"""Random changes of images, as batched tensor operations on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import TrialConfig
from trainables.seeds import seed_for

LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in gray (ITU-R BT.601, as torchvision rounds it)."""


CROP_TRIES = 10
"""Boxes that are drawn for an image before the center crop is taken, as in torchvision's `RandomResizedCrop`."""


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


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror images [B, C, H, W] left to right where `mask` (bool [B]) holds."""
    stored = to_nhwc(images)
    # Choosing among all images and their mirror images is three times as fast as torch.where on their bytes.
    both = torch.cat((stored, stored.flip(2)))
    return from_nhwc(both.index_select(0, torch.arange(len(mask), device=mask.device) + len(mask) * mask))


def crop(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad images [B, C, H, W] with `padding` zeros on each side and cut them to H × W at `top`, `left` (int64 [B])."""
    batch, channels, height, width = images.shape
    padded = functional.pad(to_nhwc(images), (0, 0, padding, padding, padding, padding))
    rows, stride = height + 2 * padding, (width + 2 * padding) * channels
    # A row of a crop is a run of bytes. All runs of that length are one overlapping view, and picking runs
    # from it is 30 times as fast as indexing pixels.
    run = width * channels
    runs = padded.as_strided((padded.numel() - run + 1, run), (1, 1))
    first = (torch.arange(batch, device=top.device) * rows + top) * stride + left * channels
    starts = first[:, None] + torch.arange(height, device=top.device) * stride
    return from_nhwc(runs.index_select(0, starts.flatten()).view(batch, height, width, channels))


def affine(images: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor, scale: Tensor) -> Tensor:
    """Turn float images [B, C, H, W] clockwise and scale them about their center, then shift them.

    `angle` in degrees, shifts in pixels, `scale` a factor, each float [B]. Bilinear, with zeros beyond the image;
    this is torchvision's `affine` without shear.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2 - shift_x[:, None]  # [B, W]
    y = torch.arange(height, device=images.device) - (height - 1) / 2 - shift_y[:, None]
    cos, sin = torch.cos(torch.deg2rad(angle)) / scale, torch.sin(torch.deg2rad(angle)) / scale
    # The place that an output pixel comes from: x·cos + y·sin across, y·cos - x·sin down, in half widths and heights.
    # Not as a matrix product, which autocast would compute in bfloat16.
    along_x = torch.stack((cos * (2 / width), -sin * (2 / height)))[..., None] * x  # [2, B, W]
    along_y = torch.stack((sin * (2 / width), cos * (2 / height)))[..., None] * y
    grid = (along_x[:, :, None, :] + along_y[:, :, :, None]).permute(1, 2, 3, 0)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply float images [B, C, H, W] in [0, 1] by `factor` (float [B])."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move float images [B, C, H, W] in [0, 1] to `factor` (float [B]) times their distance from their mean gray."""
    return _blend(images, _gray(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move float images [B, C, H, W] in [0, 1] to `factor` (float [B]) times their distance from gray."""
    return images if images.shape[1] == 1 else _blend(images, _gray(images), factor)


def _blend(images: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    return torch.lerp(other, images, ratio.view(-1, 1, 1, 1)).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Return [B, 1, H, W], the channels weighted by luma."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def as_floats(images: Tensor) -> Tensor:
    """Return uint8 images as floats in [0, 1]; floats stay as they are."""
    return images if images.is_floating_point() else images / 255


def to_nhwc(images: Tensor) -> Tensor:
    """Return [B, C, H, W] as contiguous [B, H, W, C]; this copies nothing of what is stored that way."""
    return images.permute(0, 2, 3, 1).contiguous()


def from_nhwc(images: Tensor) -> Tensor:
    """Return [B, H, W, C] as [B, C, H, W] with the same strides (channels last)."""
    return images.permute(0, 3, 1, 2)


# The table


@dataclass(frozen=True)
class Augmentation:
    """A random change of images.

    `change` takes images [B, C, H, W], uint8 or floats in [0, 1], its random numbers, float32 [draws, B] on the same
    device, and the configuration. It returns images of the same shape, as floats if it computes values.
    """

    fields: tuple[str, ...]  # of the configuration; it is applied unless all of them are zero
    draws: int  # uniform numbers in [0, 1) for an image
    change: Change


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


AUGMENTATIONS = {
    "flip": Augmentation(("flip",), 1, _flip),
    "crop": Augmentation(("crop_padding",), 2, _crop),
    "affine": Augmentation(("rotation", "shift", "scale"), 4, _affine),
    "brightness": Augmentation(("brightness",), 1, _color(brightness, "brightness")),
    "contrast": Augmentation(("contrast",), 1, _color(contrast, "contrast")),
    "saturation": Augmentation(("saturation",), 1, _color(saturation, "saturation")),
}
"""The random changes, in the order in which they are applied and draw their numbers; a new one goes to the end.

Random resized crops are not among them, as they decide which part of a picture is seen. They come first
(`views.random_frames`), and draw their numbers before these, but only where they are switched on. `TrialConfig` marks
the fields of both.
"""


FROM_STREAM = 10
"""Numbers per image that `draw` takes from the generator in every version; all others come from a second generator."""


def augment(images: Tensor, drawn: Tensor, config: TrialConfig) -> Tensor:
    """Apply the configuration's random changes to uint8 or float images [B, C, H, W]; see `Augmentation`.

    `drawn` are the numbers from `draw`: the same ones are drawn whatever is switched on, so one augmentation does not
    change another's.
    """
    numbers = drawn.to(images.device, non_blocking=True).split_with_sizes(
        [augmentation.draws for augmentation in AUGMENTATIONS.values()]
    )
    for augmentation, mine in zip(AUGMENTATIONS.values(), numbers, strict=True):
        if any(getattr(config, field) for field in augmentation.fields):
            images = augmentation.change(images, mine, config)
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
