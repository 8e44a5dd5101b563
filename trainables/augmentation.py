"""Random changes of images, as batched tensor operations on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import TrialConfig

LUMA = (0.2989, 0.587, 0.114)
"""Share of red, green and blue in grey (ITU-R BT.601, as torchvision rounds it)."""


CROP_TRIES = 10
"""As torchvision's `RandomResizedCrop` has it."""


def augment(images: Tensor, config: TrialConfig, generator: torch.Generator) -> Tensor:
    """uint8 [B, C, H, W] with the configuration's random changes; floats in [0, 1] if it computes values.

    The same numbers are drawn whatever is switched on (random resized crops come before, and draw theirs),
    so one augmentation does not change another's draws.
    """
    drawn = torch.rand(10, len(images), generator=generator).to(images.device, non_blocking=True)
    if config.flip:
        images = flip(images, drawn[0] < 0.5)
    if config.crop_padding:
        top, left = (drawn[1:3] * (2 * config.crop_padding + 1)).long().unbind()
        images = crop(images, config.crop_padding, top, left)
    angle, right, down, zoom, *colors = (2 * drawn[3:] - 1).unbind()
    if config.rotation or config.shift or config.scale:
        height, width = images.shape[2:]
        shift_x, shift_y = right * config.shift * width, down * config.shift * height
        images = affine(_unit(images), angle * config.rotation, shift_x, shift_y, 1 + zoom * config.scale)
    limits = (config.brightness, config.contrast, config.saturation)
    for adjust, limit, share in zip((brightness, contrast, saturation), limits, colors, strict=True):
        if limit:
            images = adjust(_unit(images), 1 + share * limit)
    return images


def crop_boxes(height: int, width: int, smallest: float, count: int, generator: torch.Generator) -> Tensor:
    """Random boxes, int64 [4, count]: top, left, height, width; at least `smallest` of the area, 3:4 to 4:3.

    Drawn as torchvision's `RandomResizedCrop` draws them: of ten tries the first that fits, else the middle.
    """
    area, shape = torch.rand(2, CROP_TRIES, count, generator=generator)
    area = (smallest + area * (1 - smallest)) * height * width
    ratio = torch.exp((2 * shape - 1) * math.log(4 / 3))
    tall, wide = torch.round(torch.sqrt(area / ratio)).long(), torch.round(torch.sqrt(area * ratio)).long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.long().argmax(0, keepdim=True)  # 0 where none fits
    tall, wide, found = tall.gather(0, first)[0], wide.gather(0, first)[0], fits.any(0)
    middle = (min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3)))
    tall, wide = torch.where(found, tall, middle[0]), torch.where(found, wide, middle[1])
    down, right = torch.rand(2, count, generator=generator)
    top = torch.where(found, (down * (height - tall + 1)).long(), (height - tall) // 2)
    left = torch.where(found, (right * (width - wide + 1)).long(), (width - wide) // 2)
    return torch.stack((top, left, tall, wide))


def resized_crop(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Float images [B, C, H, W] cut to `boxes` (as of `crop_boxes`) and scaled to `side` × `side`; bilinear.

    The same as torchvision's `resized_crop` without antialiasing.
    """
    height, width = images.shape[2:]
    top, left, tall, wide = boxes.to(torch.float32)[..., None]  # [B, 1] each
    steps = (torch.arange(side, device=images.device) + 0.5) / side
    y = torch.minimum((steps * tall - 0.5).clamp_(min=0), tall - 1) + top  # [B, side], in pixels' middles
    x = torch.minimum((steps * wide - 0.5).clamp_(min=0), wide - 1) + left
    across, down = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    grid = torch.stack((across[:, None, :].expand(-1, side, -1), down[:, :, None].expand(-1, -1, side)), dim=-1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Images [B, C, H, W] mirrored left to right where `mask` (bool [B]) holds."""
    stored = _to_nhwc(images)
    # Choosing whole images from both forms is three times as fast as torch.where on their bytes.
    both = torch.cat((stored, stored.flip(2)))
    return _from_nhwc(both.index_select(0, torch.arange(len(mask), device=mask.device) + len(mask) * mask))


def crop(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Images [B, C, H, W] with `padding` zeros on each side, cut to H × W at `top`, `left` (int64 [B])."""
    batch, channels, height, width = images.shape
    padded = functional.pad(_to_nhwc(images), (0, 0, padding, padding, padding, padding))
    rows, stride = height + 2 * padding, (width + 2 * padding) * channels
    # A row of a crop is a run of bytes. All runs of that length are one overlapping view, and picking runs
    # from it is 30 times as fast as indexing pixels.
    run = width * channels
    runs = padded.as_strided((padded.numel() - run + 1, run), (1, 1))
    first = (torch.arange(batch, device=top.device) * rows + top) * stride + left * channels
    starts = first[:, None] + torch.arange(height, device=top.device) * stride
    return _from_nhwc(runs.index_select(0, starts.flatten()).view(batch, height, width, channels))


def affine(images: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor, scale: Tensor) -> Tensor:
    """Float images [B, C, H, W] turned clockwise and scaled about their centre, then shifted.

    `angle` in degrees, shifts in pixels, `scale` a factor, each float [B]. Bilinear, zeros outside; the
    same as torchvision's `affine` without shear.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2 - shift_x[:, None]  # [B, W]
    y = torch.arange(height, device=images.device) - (height - 1) / 2 - shift_y[:, None]
    cos, sin = torch.cos(torch.deg2rad(angle)) / scale, torch.sin(torch.deg2rad(angle)) / scale
    # Where an output pixel comes from: x·cos + y·sin across, y·cos - x·sin down, in half widths and heights.
    # Not as a matrix product, which autocast would compute in bfloat16.
    along_x = torch.stack((cos * (2 / width), -sin * (2 / height)))[..., None] * x  # [2, B, W]
    along_y = torch.stack((sin * (2 / width), cos * (2 / height)))[..., None] * y
    grid = (along_x[:, :, None, :] + along_y[:, :, :, None]).permute(1, 2, 3, 0)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Float images [B, C, H, W] in [0, 1], times `factor` (float [B])."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Float images [B, C, H, W] in [0, 1], `factor` (float [B]) times as far from their mean grey."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Float images [B, C, H, W] in [0, 1], `factor` (float [B]) times as far from grey; grey ones stay."""
    return images if images.shape[1] == 1 else _blend(images, _grey(images), factor)


def _blend(images: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    return torch.lerp(other, images, ratio.view(-1, 1, 1, 1)).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """[B, 1, H, W], weighted by luma."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _unit(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images / 255


def _to_nhwc(images: Tensor) -> Tensor:
    """[B, C, H, W] → contiguous [B, H, W, C]; free for what is stored that way."""
    return images.permute(0, 2, 3, 1).contiguous()


def _from_nhwc(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)
