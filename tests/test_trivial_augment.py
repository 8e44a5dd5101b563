"""TrivialAugment: each operation is torchvision's, and each image gets one of its own."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide

from trainables import trivial_augment as made
from trainables.trivial_augment import OPERATIONS, STRENGTHS, trivial_augment

NAMES = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize",
    "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip
SPACE = TrivialAugmentWide._AUGMENTATION_SPACE
LEVELS = dict.fromkeys(("identity", "posterize", "solarize", "autocontrast", "equalize"), 0)
LEVELS |= {"translate_x": 0, "translate_y": 0, "color": 2, "contrast": 2}
"""How far an operation may be from torchvision's, which cuts values, gray ones too, that are rounded here."""
REFERENCE = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)


def pictures(count: int, side: int, channels: int = 3) -> Tensor:
    """Return smooth images with noise, uint8 [B, C, H, W] with the strides of the NHWC storage."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.arange(side) / side, torch.arange(side)[:, None] / side
    slope = torch.rand(count, channels, 2, 1, 1, generator=random)
    images = 150 * (slope[:, :, 0] * x + slope[:, :, 1] * y) / slope.sum(2) + 20
    images = images + 40 * torch.rand(count, channels, side, side, generator=random)
    return images.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def numbers(name: str, count: int = STRENGTHS, negative: bool = False) -> Tensor:
    """Return the random numbers that give image i the operation `name` with strength i."""
    chosen = (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS)
    drawn = torch.full((3, count), chosen)
    drawn[1] = (torch.arange(count) + 0.5) / STRENGTHS
    drawn[2] = 0.25 if negative else 0.75
    return drawn


def torchvisions(images: Tensor, name: str, strength: int, negative: bool) -> Tensor:
    magnitudes, signed = SPACE[NAMES[name]]
    values = magnitudes(STRENGTHS, *images.shape[-2:])
    value = 0.0 if values is None else float(values[strength]) * (-1 if signed and negative else 1)
    changed: Tensor = REFERENCE._apply_image_or_video_transform(images, NAMES[name], value, REFERENCE.interpolation, {})
    return changed


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("negative", [False, True])
def test_an_operation_is_torchvisions(name: str, channels: int, negative: bool) -> None:
    """Compare at all strengths."""
    images = pictures(STRENGTHS, 40, channels)
    found = trivial_augment(images, numbers(name, negative=negative))
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for strength, image in enumerate(images):
        expected = torchvisions(image, name, strength, negative)
        difference = (found[strength].int() - expected.int()).abs()
        assert difference.max() <= LEVELS.get(name, 1), strength


def test_operations_strengths_and_order_are_torchvisions() -> None:
    assert [NAMES[name] for name in OPERATIONS] == list(SPACE)
    assert inspect.signature(TrivialAugmentWide).parameters["num_magnitude_bins"].default == STRENGTHS
    assert [operation.signed for operation in OPERATIONS.values()] == [signed for _, signed in SPACE.values()]


def test_each_image_gets_an_operation_of_its_own() -> None:
    """Compare a batch of all operations with its images one by one; the batch itself is not written to."""
    images, drawn = pictures(300, 12), torch.rand(3, 300, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    found = trivial_augment(images, drawn)
    assert torch.equal(images, before)
    for row in range(0, 300, 7):
        alone = trivial_augment(images[row : row + 1], drawn[:, row : row + 1])
        assert (found[row : row + 1].int() - alone.int()).abs().max() <= 1
    chosen = (drawn[0] * len(OPERATIONS)).long()
    unchanged = (found == images).flatten(1).all(1)
    assert unchanged[chosen == 0].all()
    assert unchanged.float().mean() < 0.3
    assert set(chosen.tolist()) == set(range(len(OPERATIONS)))


def test_the_largest_random_number_below_one_is_allowed() -> None:
    largest = torch.full((3, 2), 1 - 2**-24)
    assert trivial_augment(pictures(2, 8), largest).shape == (2, 3, 8, 8)


def test_translations_end_at_the_side_of_small_images() -> None:
    images = pictures(STRENGTHS, 8)
    found = trivial_augment(images, numbers("translate_x"))
    moved = (8 * torch.linspace(0, 1, STRENGTHS)).int().tolist()
    for image, result, pixels in zip(images, found, moved, strict=True):
        assert torch.equal(result[..., pixels:], image[..., : 8 - pixels])
        assert (result[..., :pixels] == 0).all()


def test_floats_become_bytes() -> None:
    images, drawn = pictures(40, 10), torch.rand(3, 40)
    assert torch.equal(trivial_augment(images / 255, drawn), trivial_augment(images, drawn))


def test_the_docstring_counts_the_operations() -> None:
    from trainables.config import FIELDS

    assert made.__doc__ is not None
    assert re.search(rf"\b{len(OPERATIONS)} operations", FIELDS["trivial_augment"].metadata["meaning"])
