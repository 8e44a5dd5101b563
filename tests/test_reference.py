"""Whole trials against plain references: images and training are those of torchvision, torch and scikit-learn.

Each function alone is held against its reference in the tests of its own file. Here the parameters that were drawn are
read off the batches, from pictures whose colors are their coordinates, and given to torchvision; so what is drawn, in
which order it is applied, and what it is applied to are held as well.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy import stats
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, lr_scheduler
from torchvision.models import ResNet18_Weights
from torchvision.ops import sigmoid_focal_loss
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from trainables.augmentation import draw
from trainables.batches import Batches, epoch_order
from trainables.config import TrialConfig
from trainables.loop import TrialData, TrialState, train
from trainables.losses import training_loss
from trainables.models import heads
from trainables.splits import SearchData
from trainables.trial_rows import trial_rows
from trainables.views import random_frames

HEIGHT, WIDTH, DRAWS = 24, 30, 192
STEP = 8  # of color, a pixel
CPU = torch.device("cpu")


def coordinates() -> np.ndarray:
    """Return uint8 [H, W, 3] in which red is the column, green the row, and blue marks the inside."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([columns * STEP, rows * STEP, np.full_like(rows, 255)], axis=-1).astype(np.uint8)


def noise(count: int = DRAWS, low: int = 0, high: int = 256) -> np.ndarray:
    """Return uint8 [N, H, W, 3], reddish: its mean gray is not the mean of its channels."""
    values = np.random.default_rng(0).integers(low, high, (count, HEIGHT, WIDTH, 3))
    return (values * [1.0, 0.8, 0.6]).astype(np.uint8)


def seen(images: np.ndarray, **fields: Any) -> tuple[Tensor, Tensor]:
    """Return an epoch of `images` as one batch in [0, 1], and the original of each; every call draws the same."""
    shape = None if "resized_crop" in fields else (images.shape[1], images.shape[2])
    data = Batches(images, np.arange(len(images)), [0.5] * 3, [0.5] * 3, CPU, shape=shape)
    config = TrialConfig(batch_size=len(images), **{"normalization": "none", **fields})
    ((found, rows),) = data.train(torch.arange(len(images)), len(images), config, torch.Generator().manual_seed(3))
    return found, (torch.from_numpy(images).permute(0, 3, 1, 2) / 255)[rows]


def evaluated(images: np.ndarray, **fields: Any) -> Tensor:
    shape = images.shape[1], images.shape[2]
    labels = np.zeros(len(images), dtype=np.int64)
    data = Batches(images, labels, [0.4, 0.5, 0.6], [0.1, 0.2, 0.3], CPU, shape=shape)
    ((found, _),) = data.evaluate(torch.arange(len(images)), TrialConfig(batch_size=len(images), **fields))
    return found


def is_uniform(values: np.ndarray, low: float, high: float) -> bool:
    """Return whether draws look uniform and come near both ends."""
    near = 0.04 * (high - low)
    reaches = values.min() < low + near and values.max() > high - near
    return bool(reaches and stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3)


@dataclass(frozen=True)
class Origins:
    """Origins of the pixels of a batch: the pixel at `p` from the center comes from `matrix` · p + `offset` from it."""

    matrix: np.ndarray  # [N, 2, 2], x before y
    offset: np.ndarray  # [N, 2], pixels

    @classmethod
    def of(cls, batch: Tensor) -> Origins:
        """Fit the origins to the center of pictures of `coordinates`, away from edges and from zeros shifted in."""
        height, width = batch.shape[2:]
        y, x = np.mgrid[:height, :width].astype(float)
        x, y = x - (width - 1) / 2, y - (height - 1) / 2
        fits = []
        for red, green, blue in batch.double().numpy():
            inside = (np.hypot(x, y) < 4.5) & (blue > 1 - 1e-5)
            assert inside.sum() >= 8
            known = np.stack([x[inside], y[inside], np.ones(inside.sum())], axis=1)
            origins = np.stack([red[inside], green[inside]], axis=1) * 255 / STEP
            fits.append(np.linalg.lstsq(known, origins - [(WIDTH - 1) / 2, (HEIGHT - 1) / 2], rcond=None)[0])
        found = np.stack(fits)
        return cls(found[:, :2].transpose(0, 2, 1), found[:, 2])


# Transforms


def test_flip_and_padded_crop_are_each_of_their_outcomes_equally_often() -> None:
    padding, side = 2, 6
    images = noise(1500)[:, :side, :side]
    found, originals = seen(images, flip=True, crop_padding=padding)
    times: Counter[tuple[int, int, bool]] = Counter()
    outcomes = list(itertools.product(range(2 * padding + 1), range(2 * padding + 1), (False, True)))
    possible = {}
    for top, left, mirrored in outcomes:
        turned = reference.horizontal_flip(originals) if mirrored else originals
        possible[top, left, mirrored] = reference.crop(reference.pad(turned, [padding]), top, left, side, side)
    for row, image in enumerate(found):
        (outcome,) = (key for key, made in possible.items() if torch.allclose(made[row], image, atol=1e-6))
        times[outcome] += 1
    assert stats.chisquare([times[outcome] for outcome in outcomes]).pvalue > 1e-3


@pytest.mark.parametrize(
    "fields",
    [
        {"rotation": 30.0},
        {"rotation": 20.0, "shift": 0.2},
        {"scale": 0.2},
        {"rotation": 15, "shift": 0.1, "scale": 0.1},
    ],
    ids=["rotation", "paper 2", "zoom", "all"],
)
def test_rotation_shift_and_zoom(fields: dict[str, float]) -> None:
    origins = Origins.of(seen(np.stack([coordinates()] * DRAWS), **fields)[0])
    zoom = 1 / np.sqrt(np.linalg.det(origins.matrix))
    angle = np.degrees(np.arctan2(origins.matrix[:, 0, 1], origins.matrix[:, 0, 0]))
    right, down = -np.linalg.solve(origins.matrix, origins.offset[:, :, None])[:, :, 0].T
    limited = {"rotation": (angle, 1), "scale": (zoom - 1, 1)}
    for name, (values, unit) in {**limited, "shift": (right, WIDTH)}.items():
        limit = fields.get(name, 0.0) * unit
        assert (np.abs(values) <= limit + 1e-3).all()
        assert not limit or is_uniform(values, -limit, limit)
    assert (np.abs(down) <= fields.get("shift", 0.0) * HEIGHT + 1e-3).all()
    if "shift" in fields:
        assert is_uniform(down / HEIGHT, -fields["shift"], fields["shift"])
        assert abs(np.corrcoef(right, down)[0, 1]) < 0.3
    for image, original, *drawn in zip(*seen(noise(), **fields), angle, right, down, zoom, strict=True):
        turn, *shift, factor = map(float, drawn)
        expected = reference.affine(original, turn, shift, factor, [0.0, 0.0], InterpolationMode.BILINEAR)
        torch.testing.assert_close(image, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("side", [20, 36])
def test_random_resized_crop_then_flip_then_rotation(side: int, rotation: float) -> None:
    """Apply them in this order, as the first paper lists them."""
    smallest = 0.3
    fields = {"resized_crop": smallest, "image_size": side, "flip": True, "rotation": rotation}
    found, originals = seen(noise(), **fields)
    generator = torch.Generator().manual_seed(3)  # as `seen` draws: the order, then crops, then the rest
    epoch_order(torch.arange(DRAWS), DRAWS, generator)
    sizes = torch.tensor([[HEIGHT], [WIDTH]]).expand(-1, DRAWS)
    boxes = random_frames(sizes, TrialConfig(resized_crop=smallest), generator)
    numbers = draw(DRAWS, generator)
    angle, mirrored = (2 * numbers[3] - 1) * rotation, numbers[0] < 0.5
    assert stats.binomtest(int(mirrored.sum()), DRAWS, 0.5).pvalue > 1e-3
    assert not rotation or is_uniform(angle.numpy(), -rotation, rotation)
    for row, (image, original) in enumerate(zip(found, originals, strict=True)):
        expected = reference.resized_crop(original, *boxes[:, row].tolist(), [side, side], antialias=True)
        expected = reference.horizontal_flip(expected) if mirrored[row] else expected
        if rotation:
            turn = float(angle[row])
            expected = reference.affine(expected, turn, [0, 0], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
        torch.testing.assert_close(image, expected, rtol=0, atol=2 / 255)  # crops have 8 bits


JITTERS: list[dict[str, float]] = [
    {"brightness": 0.3},
    {"contrast": 0.3},
    {"saturation": 0.3},
    {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
]


@pytest.mark.parametrize("fields", JITTERS, ids=lambda fields: "+".join(fields))
def test_color_jitter(fields: dict[str, float]) -> None:
    """Read factors off colors so mild that none is clipped, then compare with torchvision on all colors."""
    mild, before = seen(noise(low=100, high=150), **fields)
    grey = [reference.rgb_to_grayscale(images)[:, 0] for images in (mild, before)]
    chroma = [images[:, 0] - images[:, 2] for images in (mild, before)]
    level, spread = (grey[0].mean((1, 2)) / grey[1].mean((1, 2)), grey[0].std((1, 2)) / grey[1].std((1, 2)))
    color = chroma[0].std((1, 2)) / chroma[1].std((1, 2))
    factors = {"brightness": level, "contrast": spread / level, "saturation": color / spread}
    for name, factor in factors.items():
        limit = fields.get(name, 0.0)
        assert ((factor - 1).abs() <= limit + 2e-3).all()
        assert not limit or is_uniform(factor.numpy(), 1 - limit, 1 + limit)
    for row, (image, original) in enumerate(zip(*seen(noise(), **fields), strict=True)):
        expected = original
        for name, factor in factors.items():
            expected = getattr(reference, f"adjust_{name}")(expected, float(factor[row]))
        torch.testing.assert_close(image, expected, rtol=0, atol=5e-3)


def test_evaluation_is_the_published_one_of_imagenet_classifiers() -> None:
    """Compare with torchvision's preset of ResNet-18: resize to 256, center crop of 224, normalize."""
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    found = evaluated(images, image_size=224, evaluation_crop=224 / 256, normalization="imagenet", resized_crop=0.08)
    preset = ResNet18_Weights.IMAGENET1K_V1.transforms(antialias=True)
    level = 1.01 / 255 / min(preset.std)
    torch.testing.assert_close(found, preset(torch.from_numpy(images).permute(0, 3, 1, 2)), rtol=0, atol=level)


PRESET = ResNet18_Weights.IMAGENET1K_V1.transforms()


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("train", [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]),
        ("imagenet", PRESET.mean, PRESET.std),
        ("half", [0.5] * 3, [0.5] * 3),
        ("none", [0.0] * 3, [1.0] * 3),  # divided by 255, nothing else
    ],
)
def test_normalization(name: str, mean: list[float], std: list[float]) -> None:
    images = noise(4)
    expected = reference.normalize(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, mean, std)
    torch.testing.assert_close(evaluated(images, normalization=name), expected)


# What is trained on


CLASSES, A_CLASS = 5, 250


def pictures() -> SearchData:
    """Return noise of five classes, each of another brightness: 1,000 rows to search on and 250 test rows."""
    labels = np.arange(CLASSES * A_CLASS) % CLASSES
    images = np.random.default_rng(1).integers(0, 60, (len(labels), 4, 4, 3), dtype=np.uint8)
    images += (labels * 40).astype(np.uint8)[:, None, None, None]
    validation, pool, test = np.split(np.arange(len(labels)), [200, 1000])
    mean, std = images[pool].mean((0, 1, 2)) / 255, images[pool].std((0, 1, 2)) / 255
    made = mean.astype(np.float32), std.astype(np.float32)
    return SearchData(images, labels, tuple("abcde"), validation, pool, *made, "0", test=test, official_test=True)


SPLITS = ["core", "official", "80:20", "70:15:15"]


def select(config: TrialConfig) -> TrialData:
    found = pictures()
    return TrialData.select(config, found, Batches.of(found, CPU))


@pytest.mark.parametrize("split", SPLITS)
def test_a_whole_training_part_has_mean_0_and_deviation_1(split: str) -> None:
    """Check the training part of the split, before rows of it are left out."""
    whole = trial_rows(pictures(), TrialConfig(split=split)).train
    data = select(TrialConfig(split=split, removed_share=0.6, removed_classes="0,1", train_fraction=0.5))
    assert len(data.train_rows) < len(whole)
    ((images, _),) = data.batches.evaluate(torch.from_numpy(whole), TrialConfig(batch_size=len(whole)))
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "imbalance",
    [
        {},
        {"removed_share": 0.1, "removed_classes": "0,1,2"},
        {"long_tail": 0.1},
        {"long_tail": 0.3, "train_fraction": 0.7},
    ],
    ids=str,
)
def test_imbalance_row_by_row(split: str, imbalance: dict[str, Any]) -> None:
    """Go through the training part in its order, and keep the first rows of every class, as many as are due."""
    data, config = pictures(), TrialConfig(split=split, **imbalance)
    whole = trial_rows(data, TrialConfig(split=split)).train
    there = Counter(data.labels[whole].tolist())
    tail = np.geomspace(1, config.long_tail, CLASSES)  # Cui et al. 2019: n_c = n · μ^(c / (C - 1))
    kept: Counter[int] = Counter()
    expected = []
    for row in whole.tolist():
        label = int(data.labels[row])
        removed = round(config.removed_share * there[label]) if str(label) in config.removed_classes.split(",") else 0
        quota = math.ceil(round((there[label] - removed) * tail[label]) * config.train_fraction - 1e-9)
        if kept[label] < quota:
            kept[label] += 1
            expected.append(row)
    assert trial_rows(data, config).train.tolist() == expected


@pytest.mark.parametrize(
    ("tail", "counts"),
    [
        (0.1, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        (0.01, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
    ],
)
def test_the_published_long_tails_of_cifar10(tail: float, counts: list[int]) -> None:
    """Compare with Cui et al. 2019 and Cao et al. 2019, who round down; here numbers are rounded to the nearest."""
    labels = np.arange(60_000) % 10
    none = np.zeros((60_000, 1, 1, 1), dtype=np.uint8)
    validation, pool, test = np.split(np.arange(60_000), [10_000, 50_000])
    one = np.ones(1, np.float32)
    classes = tuple("abcdefghij")
    data = SearchData(none, labels, classes, validation, pool, one, one, "0", test=test, official_test=True)
    found = np.bincount(labels[trial_rows(data, TrialConfig(split="official", long_tail=tail)).train])
    assert (np.abs(found - counts) <= 1).all()
    thinned = TrialConfig(split="official", removed_share=0.1, removed_classes="0,1,2")
    assert np.bincount(labels[trial_rows(data, thinned).train]).tolist() == [4500] * 3 + [5000] * 7


@pytest.mark.parametrize("split", SPLITS)
def test_class_weights_are_of_the_rows_trained_on(split: str) -> None:
    """Compare with scikit-learn's balanced weights, scaled so that they sum to one."""
    data = pictures()
    fields: dict[str, Any] = {"split": split, "long_tail": 0.1, "removed_share": 0.5, "removed_classes": "1,3"}
    selected = select(TrialConfig(class_weights="inverse", **fields))
    labels = data.labels[trial_rows(data, TrialConfig(**fields)).train]
    expected = compute_class_weight("balanced", classes=np.arange(CLASSES), y=labels)
    assert selected.folds[0].class_weights is not None
    np.testing.assert_allclose(selected.folds[0].class_weights.numpy(), expected / expected.sum(), rtol=1e-6)
    assert select(TrialConfig(**fields)).folds[0].class_weights is None


def test_balanced_sampling_of_a_long_tail() -> None:
    config = TrialConfig(sampling="balanced", long_tail=0.05, batch_size=50, split="official", epoch="rows")
    data = select(config)
    batches = data.batches.train(data.train_rows, data.epoch_rows, config, torch.Generator().manual_seed(0))
    times = torch.cat([labels for _, labels in batches]).bincount(minlength=CLASSES)
    assert data.epoch_rows == len(data.train_rows) == times.sum()
    assert times.max() - times.min() <= 1


# What is minimised, and how


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_two_classes_is_torchvisions(gamma: float) -> None:
    logits = 3 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    score = logits[:, 1] - logits[:, 0]
    expected = sigmoid_focal_loss(score, labels.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(training_loss(TrialConfig(focal_gamma=gamma), logits, labels, None), expected)


class Recorded(Batches):
    """Batches that record those that were trained on."""

    def __init__(self, batches: Batches) -> None:
        vars(self).update(vars(batches))
        self.batches_seen: list[tuple[Tensor, Tensor]] = []

    def train(self, *arguments: Any) -> Any:
        for batch in super().train(*arguments):
            self.batches_seen.append(batch)
            yield batch


def soft(labels: Tensor, classes: int, config: TrialConfig) -> Tensor:
    """Return targets as probabilities."""
    e, own = config.label_smoothing, functional.one_hot(labels, classes)
    if config.smoothed_over == "others":  # 1 - ε on the class, ε / (c - 1) on each other
        return own * (1 - e) + (1 - own) * e / (classes - 1)
    return own * (1 - e) + e / classes


def make_schedule(config: TrialConfig, optimizer: SGD, steps: int) -> lr_scheduler.LRScheduler:
    """Return torch's schedule, which is stepped after every batch."""
    total = config.max_epochs * steps
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, total)
    if config.schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimizer, config.lr, total, pct_start=config.warmup, cycle_momentum=False)
    if config.schedule == "cyclic":
        return lr_scheduler.CyclicLR(optimizer, config.lr / 10, config.lr, total // 2, cycle_momentum=False)
    return lr_scheduler.ConstantLR(optimizer, 1.0)


def plain_loop(
    config: TrialConfig, model: nn.Module, data: TrialData, batches: list[tuple[Tensor, Tensor]]
) -> tuple[list[float], list[float]]:
    """Train as a plain script would; return the learning rate and the validation loss of every epoch."""
    steps = len(batches) // config.max_epochs
    head = [weight for weight in heads.head_of(model).parameters() if weight.ndim > 1]
    others = [p for p in model.parameters() if p.ndim > 1 and all(p is not weight for weight in head)]
    groups = [
        {"params": head, "weight_decay": config.weight_decay + 2 * config.head_l2},  # the derivative of λ·w²
        {"params": others, "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = SGD(groups, config.lr, momentum=config.momentum, nesterov=True)
    schedule = make_schedule(config, optimizer, steps)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    scored = list(data.batches.evaluate(data.scored_rows, config))
    rates, losses = [], []
    for number, (images, labels) in enumerate(batches, start=1):
        model.train()
        logits = model(images)
        loss = functional.cross_entropy(logits, soft(labels, data.classes, config), reduction="none")
        if config.class_weights == "inverse":
            counts = torch.bincount(data.batches.labels[data.train_rows])
            weights = (1 / counts) / (1 / counts).sum()
            targets = soft(labels, data.classes, config) * weights
            loss = -(targets * logits.log_softmax(1)).sum(1) / weights[labels].sum() * len(labels)
        loss = loss.mean() + config.head_l1 * sum(weight.abs().sum() for weight in head)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if number < len(batches) and config.schedule != "plateau":
            schedule.step()
        if number % steps == 0:
            with torch.inference_mode():
                model.eval()
                found = [functional.cross_entropy(model(x), y, reduction="sum") for x, y in scored]
            losses.append(float(sum(found)) / len(data.scored_rows))
            if config.schedule == "plateau":
                plateau.step(losses[-1])
    return rates[steps - 1 :: steps], losses


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "cosine", "label_smoothing": 0.1, "smoothed_over": "others", "flip": True, "crop_padding": 1},
        {"schedule": "one_cycle", "warmup": 0.3, "label_smoothing": 0.2},
        {"schedule": "cyclic", "class_weights": "inverse", "long_tail": 0.3, "label_smoothing": 0.1},
        {"schedule": "constant", "head_l1": 0.01, "head_l2": 0.02, "weight_decay": 0.0},
        {"schedule": "plateau", "lr": 1.0, "max_epochs": 12, "momentum": 0.5, "class_weights": "inverse"},
    ],
    ids=lambda fields: fields["schedule"],
)
def test_a_trial_is_a_plain_loop(fields: dict[str, Any]) -> None:
    """Compare optimizer, schedule, loss and penalties together, on the batches that the trial had."""
    config = tiny.config(**{"max_epochs": 4, "lr": 0.02, "weight_decay": 0.01, **fields})
    found = tiny.search_data()
    batches = Batches.of(found, CPU)
    data = TrialData.select(config, found, batches)
    recorded = Recorded(data.batches)
    state = TrialState.start(config, data, CPU)
    plain = copy.deepcopy(state.model)
    epochs = list(train(dataclasses.replace(data, batches=recorded), state))
    rates, losses = plain_loop(config, plain, data, recorded.batches_seen)
    assert [epoch.lr for epoch in epochs] == pytest.approx(rates)
    assert [epoch.val_loss for epoch in epochs] == pytest.approx(losses, rel=1e-3)
    if config.schedule == "plateau":
        assert len({round(math.log10(rate / config.lr)) for rate in rates}) > 1  # it did fall
    for name, weight in state.model.state_dict().items():
        torch.testing.assert_close(weight, plain.state_dict()[name], rtol=1e-3, atol=1e-4)
