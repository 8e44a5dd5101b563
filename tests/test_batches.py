"""Batches: the rows of an epoch, and augmentations that equal torchvision's, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import RandomErasing
from torchvision.transforms.v2 import functional as reference

from trainables import augmentation, autos, batches, operators, views
from trainables.batches import Batches
from trainables.config import AUGMENTING, TrialConfig
from trainables.models import inputs
from trainables.views import Streamed

Batch = tuple[Tensor, Tensor]
CPU = torch.device("cpu")
ROWS, HEIGHT, WIDTH = 37, 9, 11
SIDE = HEIGHT  # of the squares that are seen of the pictures
EVERYTHING: dict[str, Any] = {
    "flip": True, "crop_padding": 2, "rotation": 15.0, "shift": 0.1, "scale": 0.1,
    "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "trivial_augment": True, "erasing": 0.5,
}  # fmt: skip


def pictures(channels: int = 3, rows: int = ROWS) -> np.ndarray:
    """Return random images, read-only as those from Ray's object store."""
    images = np.random.default_rng(0).integers(0, 256, (rows, HEIGHT, WIDTH, channels), dtype=np.uint8)
    images.flags.writeable = False
    return images


def resident(channels: int = 3) -> Batches:
    """Return batches in which row i has label i."""
    return Batches(pictures(channels), np.arange(ROWS), [0.4] * channels, [0.2] * channels, CPU)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def epoch(data: Batches, rows: Tensor, epoch_rows: int, seed: int = 0, **fields: Any) -> list[Batch]:
    return list(data.train(rows, epoch_rows, TrialConfig(**fields), seeded(seed)))


def stored(channels: int = 3, rows: int = 8) -> Tensor:
    """Return images uint8 [B, C, H, W] with the strides of the NHWC storage."""
    return torch.tensor(pictures(channels, rows)).permute(0, 3, 1, 2)


def centers(images: Tensor) -> Tensor:
    """Return the squares at the center of images [B, C, H, W]."""
    left = (WIDTH - HEIGHT) // 2
    return images[..., left : left + HEIGHT]


# What an epoch is


@pytest.mark.parametrize("epoch_rows", [ROWS, 10, 2 * ROWS, 100])
def test_an_epoch_sees_every_row_equally_often(epoch_rows: int) -> None:
    rows = torch.arange(5, 25)
    labels = torch.cat([labels for _, labels in epoch(resident(), rows, epoch_rows, batch_size=7)])
    assert len(labels) == epoch_rows
    seen = labels.bincount(minlength=ROWS)[rows]
    assert seen.sum() == epoch_rows
    assert seen.max() - seen.min() <= 1


def test_the_order_is_new_in_each_round() -> None:
    order = batches.epoch_order(torch.arange(20), 40, seeded())
    assert sorted(order[:20].tolist()) == sorted(order[20:].tolist()) == list(range(20))
    assert order[:20].tolist() != order[20:].tolist()


@pytest.mark.parametrize(
    ("epoch_rows", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (4, 3, [3])],
)
def test_a_last_batch_of_one_row_is_left_out(epoch_rows: int, batch_size: int, sizes: list[int]) -> None:
    made = epoch(resident(), torch.arange(20), epoch_rows, batch_size=batch_size)
    assert [len(labels) for _, labels in made] == sizes


def test_images_keep_their_labels() -> None:
    expected = batches.normalize(centers(stored(rows=ROWS)), torch.tensor([0.4]), torch.tensor([0.2]))
    for images, labels in epoch(resident(), torch.arange(ROWS), 50, batch_size=8):
        torch.testing.assert_close(images, expected[labels], rtol=0, atol=0)


def test_evaluation_keeps_the_order_and_does_not_augment() -> None:
    rows = torch.tensor([5, 3, 30, 3, 8])
    config = TrialConfig(batch_size=4, **EVERYTHING)
    made = list(resident().evaluate(rows, config))
    assert [len(labels) for _, labels in made] == [4, 1]
    images, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
    assert labels.tolist() == rows.tolist()
    expected = reference.normalize(centers(stored(rows=ROWS))[rows] / 255, [0.4] * 3, [0.2] * 3)
    torch.testing.assert_close(images, expected)


def test_a_seed_fixes_an_epoch() -> None:
    data, rows = resident(), torch.arange(ROWS)
    first, again, other = (epoch(data, rows, ROWS, seed, batch_size=16, **EVERYTHING) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0][0], other[0][0])


def test_one_augmentation_does_not_change_anothers_draws() -> None:
    data, rows = resident(), torch.arange(ROWS)
    alone = epoch(data, rows, ROWS, flip=True)[0][0]
    # brightness of almost nothing: the images differ by its factor only, so the same ones are mirrored
    both = epoch(data, rows, ROWS, flip=True, brightness=1e-7)[0][0]
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)


def test_augmentations_at_the_tables_end_leave_the_draws_of_others_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compare all batches of an epoch; a second addition leaves the first one's draws, too."""
    fields: dict[str, Any] = {"batch_size": 8, "resized_crop": 0.5, **EVERYTHING}
    drawn: dict[str, list[Tensor]] = {"first": [], "second": []}

    def added(name: str, draws: int) -> augmentation.Augmentation:
        def change(images: Tensor, numbers: Tensor, config: TrialConfig) -> Tensor:
            drawn[name].append(numbers)
            return images

        return augmentation.Augmentation(("flip",), draws, change)

    def epoch_with(**additions: augmentation.Augmentation) -> list[Batch]:
        monkeypatch.setattr(augmentation, "AUGMENTATIONS", {**table, **additions})
        return epoch(resident(), torch.arange(ROWS), ROWS, **fields)

    table = augmentation.AUGMENTATIONS
    before = epoch_with()
    first = epoch_with(first=added("first", 2))
    both = epoch_with(first=added("first", 2), second=added("second", 3))
    torch.testing.assert_close(first, before, rtol=0, atol=0)
    torch.testing.assert_close(both, before, rtol=0, atol=0)
    assert len(before) == len(drawn["second"]) == 5
    torch.testing.assert_close(drawn["first"][:5], drawn["first"][5:], rtol=0, atol=0)
    numbers = torch.cat([numbers.flatten() for numbers in (*drawn["first"][5:], *drawn["second"])])
    assert numbers.shape == (5 * ROWS,)
    assert len(set(numbers.tolist())) == len(numbers)  # no two batches share a number
    assert [numbers.min().item(), numbers.max().item()] == pytest.approx([0, 1], abs=0.05)


def test_the_fields_of_augmentations_are_marked_in_the_configuration() -> None:
    """Check that marks and table agree, but for what comes before the table and after it."""
    fields = [field for entry in augmentation.AUGMENTATIONS.values() for field in entry.fields]
    assert len(set(fields)) == len(fields)
    assert {*fields, "resized_crop", "mixup", "cutmix"} == set(AUGMENTING)


def test_resident_images_are_never_written_to() -> None:
    images = pictures()
    data = Batches(images, np.arange(ROWS), [0.4] * 3, [0.2] * 3, CPU)
    epoch(data, torch.arange(ROWS), ROWS, **EVERYTHING)
    assert isinstance(data.images, Streamed)
    assert np.shares_memory(data.images.stored.as_array(), images)  # not copied
    assert np.array_equal(images, pictures())


# What a batch is


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("fields", [{}, EVERYTHING], ids=["plain", "augmented"])
def test_batches_are_float32_rgb_in_their_layout(channels: int, layout: str, fields: dict[str, Any]) -> None:
    config = TrialConfig(memory_format=layout, batch_size=8, **fields)
    with torch.autocast("cpu", torch.bfloat16):  # as the loop may hold it open while it draws batches
        images, labels = next(resident(channels).train(torch.arange(ROWS), ROWS, config, seeded()))
    assert (images.shape, images.dtype, labels.dtype) == ((8, 3, SIDE, SIDE), torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=batches.memory_format(config))
    plain = next(resident(channels).train(torch.arange(ROWS), ROWS, config, seeded()))[0]
    assert torch.equal(images, plain)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("train", (0.3,), (0.1,)), ("half", (0.5,), (0.5,)), ("imagenet", *inputs.IMAGENET)],
)
def test_gray_is_normalized_as_three_equal_channels(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    grey = stored(channels=1)
    values = batches.normalization(name, (0.3,), (0.1,))
    found = batches.normalize(grey, *(torch.tensor(value) for value in values))
    expected = reference.normalize(grey.expand(-1, 3, -1, -1) / 255, list(mean), list(std))
    torch.testing.assert_close(found, expected)


def test_the_augmented_batch_is_the_functions_one_after_another() -> None:
    images, config = stored(), TrialConfig(**EVERYTHING | {"saturation": 0.0, "trivial_augment": False})
    drawn = augmentation.draw(len(images), seeded())
    spread = 2 * drawn - 1
    expected = operators.crop(operators.flip(images, drawn[0] < 0.5), 2, *(drawn[1:3] * 5).long()) / 255
    shifts = spread[4] * 0.1 * WIDTH, spread[5] * 0.1 * HEIGHT
    expected = operators.affine(expected, spread[3] * 15, *shifts, 1 + spread[6] * 0.1)
    expected = operators.brightness(expected, 1 + spread[7] * 0.2)
    expected = operators.contrast(expected, 1 + spread[8] * 0.2)
    torch.testing.assert_close(augmentation.augment(images, drawn, config), expected)


# Each augmentation is torchvision's

Reference = Callable[[Tensor, int], Tensor]


def assert_like(found: Tensor, images: Tensor, one: Reference, exact: bool = False) -> None:
    expected = torch.stack([one(image, i) for i, image in enumerate(images)])
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if exact else 2e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip(channels: int) -> None:
    images, mask = stored(channels), torch.arange(8) % 3 == 0
    found = operators.flip(images, mask)

    def one(image: Tensor, i: int) -> Tensor:
        return reference.horizontal_flip(image) if mask[i] else image

    assert_like(found, images, one, exact=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [1, 4])
def test_crop(channels: int, padding: int) -> None:
    images = stored(channels)
    top, left = (torch.randint(0, 2 * padding + 1, (8,), generator=seeded(seed)) for seed in (1, 2))
    top[0], left[0], top[1], left[1] = 0, 0, 2 * padding, 2 * padding

    def one(image: Tensor, i: int) -> Tensor:
        padded = reference.pad(image, [padding])
        return Tensor(reference.crop(padded, int(top[i]), int(left[i]), HEIGHT, WIDTH))

    assert_like(operators.crop(images, padding, top, left), images, one, exact=True)
    assert_like(operators.crop(images.contiguous(), padding, top, left), images, one, exact=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_affine(channels: int) -> None:
    images = stored(channels) / 255
    angle, right, down = (40 * (torch.rand(8, generator=seeded(seed)) - 0.5) for seed in (1, 2, 3))
    scale = 0.5 + torch.rand(8, generator=seeded(4))

    def one(image: Tensor, i: int) -> Tensor:
        shift = [float(right[i]) / 10, float(down[i]) / 10]
        turn, zoom = float(angle[i]), float(scale[i])
        return Tensor(reference.affine(image, turn, shift, zoom, [0.0, 0.0], InterpolationMode.BILINEAR))

    assert_like(operators.affine(images, angle, right / 10, down / 10, scale), images, one)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colors(name: str, channels: int) -> None:
    images, factor = stored(channels) / 255, torch.linspace(0, 2, 8)
    adjust = getattr(reference, f"adjust_{name}")
    found = getattr(operators, name)(images, factor)
    assert_like(found, images, lambda image, i: adjust(image, float(factor[i])))


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (10, 100)])
@pytest.mark.parametrize("smallest", [0.08, 0.9])
def test_crop_boxes_are_drawn_as_torchvision_draws_them(height: int, width: int, smallest: float) -> None:
    count = 4000
    torch.manual_seed(0)
    draw = RandomResizedCrop.get_params
    expected = torch.tensor(
        [draw(torch.empty(3, height, width), [smallest, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    )
    heights, widths = torch.tensor([[height], [width]]).expand(-1, count)
    found = augmentation.crop_boxes(heights, widths, smallest, seeded()).T
    assert (found[:, :2] >= 0).all()
    assert (found[:, 0] + found[:, 2] <= height).all()
    assert (found[:, 1] + found[:, 3] <= width).all()
    assert_same_distribution(found, expected)


def test_sharpness_and_shear() -> None:
    images, factor = stored() / 255, torch.linspace(0, 2, 8)
    found = operators.sharpness(images, factor)
    assert_like(found, images, lambda image, i: reference.adjust_sharpness(image, float(factor[i])))
    x, y = torch.linspace(-0.9, 0.9, 8), torch.linspace(0.4, -0.5, 8)
    none = torch.zeros(8)
    for across, down in ((x, none), (none, y)):

        def one(image: Tensor, i: int, across: Tensor = across, down: Tensor = down) -> Tensor:
            angles = [math.degrees(math.atan(float(tangent[i]))) for tangent in (across, down)]
            bilinear = InterpolationMode.BILINEAR
            return Tensor(reference.affine(image, 0.0, [0, 0], 1.0, angles, bilinear, center=[0.0, 0.0]))

        assert_like(operators.shear(images, across, down), images, one)


def test_posterize_and_solarize() -> None:
    images, bits, threshold = stored(), torch.arange(1, 9).float(), torch.linspace(0, 255, 8)
    found = operators.posterize(images, bits)
    assert_like(found, images, lambda image, i: reference.posterize(image, int(bits[i])), exact=True)
    found = operators.solarize(images, threshold)
    assert_like(found, images, lambda image, i: reference.solarize(image, float(threshold[i])), exact=True)


def test_erased_boxes_are_torchvisions() -> None:
    """Compare the images, given the same boxes; then the distribution of the boxes, given the same probability."""
    images, boxes = torch.randn(3, 3, 20, 30), torch.tensor([[2, 0, 5], [0, 1, 29], [7, 0, 15], [4, 3, 1]])
    found = operators.erase(images.clone(), boxes)

    def one(image: Tensor, i: int) -> Tensor:
        return Tensor(reference.erase(image, *boxes[:, i].tolist(), torch.zeros(1)))

    assert_like(found, images, one, exact=True)
    assert torch.equal(found[1], images[1])

    torch.manual_seed(0)
    height, width, count, draw = 40, 25, 4000, RandomErasing(p=1.0).make_params
    empty = torch.empty(3, height, width)
    drawn = [draw([empty]) for _ in range(count)]
    expected = torch.tensor([[each[name] for name in "ijhw"] for each in drawn if each["v"] is not None])
    made = augmentation.erasing_boxes(torch.rand(22, count), height, width).T
    assert_same_distribution(made, expected)


def assert_same_distribution(found: Tensor, expected: Tensor) -> None:
    """Compare means and deviations of the columns of integers [N, 4], within five standard errors."""
    for column in range(4):
        ours, theirs = found[:, column].double(), expected[:, column].double()
        error = torch.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs)) + 1e-9
        assert abs(ours.mean() - theirs.mean()) < 5 * error
        torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.1, atol=0.1)


def test_erasing_has_its_probability_and_leaves_the_mean() -> None:
    """Compare with a batch without it: what differs is a box, in about so many images, which is 0 after normalizing."""
    images = np.random.default_rng(1).integers(0, 256, (600, HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = Batches(images, np.arange(600), [0.4] * 3, [0.2] * 3, CPU)
    plain, erased = (
        epoch(data, torch.arange(600), 600, batch_size=600, flip=True, erasing=share)[0][0] for share in (0.0, 0.25)
    )
    changed = (plain != erased).any(1)
    assert (erased.permute(0, 2, 3, 1)[changed] == 0).all()
    assert torch.equal(erased.permute(0, 2, 3, 1)[~changed], plain.permute(0, 2, 3, 1)[~changed])
    assert 0.2 < changed.flatten(1).any(1).float().mean() < 0.3
    for mask in changed[changed.flatten(1).any(1)][:50]:
        assert mask.sum() == mask.any(0).sum() * mask.any(1).sum()  # a box


def test_evaluation_sees_the_middle() -> None:
    config = TrialConfig(image_size=6, evaluation_crop=0.75, normalization="half", batch_size=ROWS)
    ((found, _),) = resident().evaluate(torch.arange(ROWS), config)
    resized = reference.resize(centers(stored(rows=ROWS)), [8], antialias=True)
    expected = reference.normalize(reference.center_crop(resized, [6, 6]) / 255, [0.5] * 3, [0.5] * 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_images_are_squares_of_the_size_asked_for() -> None:
    data, rows = resident(), torch.arange(ROWS)
    for fields, side in (
        ({}, HEIGHT),
        ({"image_size": 18}, 18),
        ({"image_size": 6, "resized_crop": 0.3}, 6),
        ({"image_size": 6, "resized_crop": 0.3, **EVERYTHING}, 6),
    ):
        for fit in views.FRAMES:
            images, _ = epoch(data, rows, ROWS, fit=fit, **fields)[0]
            assert images.shape[2:] == (side, side)
            evaluated, _ = next(data.evaluate(rows, TrialConfig(fit=fit, **fields)))
            assert evaluated.shape[2:] == (side, side)


def test_large_images_are_trained_smaller_by_default() -> None:
    images = np.zeros((4, 100, 80, 3), dtype=np.uint8)
    data = Batches(images, np.arange(4), [0.5], [0.5], CPU)
    assert data.image_size(TrialConfig()) == autos.LARGEST["cpu"]
    assert data.image_size(TrialConfig(image_size=80)) == 80
