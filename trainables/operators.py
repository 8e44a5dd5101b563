"""Operators on a batch of images, each image with parameters of its own, as tensor operations on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in gray (ITU-R BT.601, as torchvision rounds it)."""


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
    along_x = torch.stack((cos * (2 / width), -sin * (2 / height)))[..., None] * x  # [2, B, W]
    along_y = torch.stack((sin * (2 / width), cos * (2 / height)))[..., None] * y
    return _sampled(images, along_x, along_y)


def shear(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Move pixels of float images [B, C, H, W]: each comes from `x` times its row further right, `y` its column down.

    `x` and `y` are float [B], rows and columns are counted from the upper left corner. Bilinear, with zeros beyond the
    image; this is torchvision's `affine` with `center=[0, 0]`, a shear by the angle whose tangent is `x` or `y`.
    """
    height, width = images.shape[2:]
    columns = torch.arange(width, device=images.device) + 0.5
    rows = torch.arange(height, device=images.device) + 0.5
    one = torch.ones_like(x)
    along_x = torch.stack((one * (2 / width), y * (2 / height)))[..., None] * columns
    along_y = torch.stack((x * (2 / width), one * (2 / height)))[..., None] * rows
    return _sampled(images, along_x - 1, along_y)


def _sampled(images: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    """Return what float images [B, C, H, W] have at the sum of `along_x` [2, B, W] and `along_y` [2, B, H].

    That is how far right and down of the center, in half widths and heights. Bilinear, with zeros beyond the image.
    """
    # Not as a matrix product, which autocast would compute in bfloat16.
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


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Move float images [B, C, H, W] in [0, 1] to `factor` (float [B]) times their distance from a smoothed image.

    That is the mean over 3 × 3 pixels, in which the one in the middle counts five times; the border is not changed.
    """
    if min(images.shape[2:]) < 3:
        return images
    across = images[..., :-2] + images[..., 1:-1] + images[..., 2:]  # slices: pooling takes 9 times as long
    total = across[:, :, :-2] + across[:, :, 1:-1] + across[:, :, 2:]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1].mul_(4).add_(total).div_(13)
    return _blend(images, smooth, factor)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` (float [B], whole numbers from 0 to 8) of uint8 images [B, C, H, W]."""
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8).view(-1, 1, 1, 1)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Return uint8 images [B, C, H, W] with values from `threshold` (float [B], 0 to 255) on inverted."""
    bright = images >= threshold.ceil().to(torch.uint8).view(-1, 1, 1, 1)
    return images ^ (bright.to(torch.uint8) * 255)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set float images [B, C, H, W] to zero, in place, in `boxes`: top, left, height, width, int64 [4, B]."""
    top, left, tall, wide = boxes[:, :, None]
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
    in_rows = (rows >= top) & (rows < top + tall)  # [B, H]
    in_columns = (columns >= left) & (columns < left + wide)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill_(inside, 0)


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


def as_bytes(images: Tensor) -> Tensor:
    """Return floats in [0, 1] as uint8, rounded to the nearest level; uint8 images stay as they are."""
    return (images * 255).round_().to(torch.uint8) if images.is_floating_point() else images


def to_nhwc(images: Tensor) -> Tensor:
    """Return [B, C, H, W] as contiguous [B, H, W, C]; this copies nothing of what is stored that way."""
    return images.permute(0, 2, 3, 1).contiguous()


def from_nhwc(images: Tensor) -> Tensor:
    """Return [B, H, W, C] as [B, C, H, W] with the same strides (channels last)."""
    return images.permute(0, 3, 1, 2)
