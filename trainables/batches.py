"""Batches of a trial: stored uint8 images, augmented and normalized by batched tensor operations on the device.

Inside, images are [B, C, H, W] with the strides of the NHWC storage (channels last); flip and crop move
bytes, the other augmentations compute on float32 in [0, 1]. All random parameters come from one generator on
the CPU, so a CPU and a GPU see the same augmentation. Within an epoch nothing waits for the device.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainables.augmentation import as_floats, augment, crop_boxes, from_nhwc, resized_crop, to_nhwc
from trainables.config import TrialConfig
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages, portions
from trainables.errors import look_up

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, as torchvision's weights expect them."""


LARGEST = {"cpu": 64, "cuda": 224}
"""Most pixels of the shorter side under `image_size=0`, by device: what it can train on in reasonable time."""


def image_size(config: TrialConfig, stored: Sequence[int], device: str) -> int:
    """Return the pixels of the shorter side of a trial's images on `device`, if they are `stored` as height × width."""
    return config.image_size or min(*stored, LARGEST.get(device, min(stored)))


GPU_SHARE = 0.3
"""Share of a GPU's free memory that images may take: training needs the rest, and another trial's worker may, too."""


class Streamed:
    """Images that stay where they are, in files or in memory: rows are copied to the device when they are needed."""

    device = torch.device("cpu")  # where row numbers must be

    def __init__(self, images: Pixels | StoredImages, target: torch.device) -> None:
        self._images, self._target = images, target
        self.shape = images.shape

    def __getitem__(self, rows: slice) -> Tensor:
        return torch.from_numpy(self._images[np.arange(*rows.indices(len(self._images)))])

    def index_select(self, dimension: int, rows: Tensor) -> Tensor:
        """Return `rows` (int64 on the CPU) as a tensor on the device; `dimension` is 0, as a tensor's method has it."""
        images = torch.from_numpy(self._images[rows.numpy()])
        if self._target.type == "cpu":
            return images
        return images.pin_memory().to(self._target, non_blocking=True)


class Batches:
    """A data set on the device, which yields its batches under any configuration and keeps nothing of a trial.

    Args:
        images: uint8 [N, H, W, C], C of 1 or 3; may be read-only. On the CPU an array's memory is shared. A GPU takes
            all images at once, unless they need more than GPU_SHARE of its free memory; stored images otherwise stay
            in their files. The content of batches is the same either way.
        labels: integers [N].
        mean, std: of the training part, for images in [0, 1]; C values each.
        device: where labels are moved once, and images once or batch by batch.

    Batches are float32 images [B, 3, H, W] in the layout `memory_format(config)`, and int64 labels [B].
    """

    def __init__(
        self,
        images: Pixels | StoredImages,
        labels: NDArray[np.integer],
        mean: Sequence[float] | NDArray[np.floating],
        std: Sequence[float] | NDArray[np.floating],
        device: torch.device,
    ) -> None:
        self.images = _on_device(images, device)
        self.labels = _tensor(labels).to(device, torch.int64)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))

    def normalized_by(
        self, mean: Sequence[float] | NDArray[np.floating], std: Sequence[float] | NDArray[np.floating]
    ) -> Batches:
        """Return batches of the same images, not copied, with the mean and deviation of another training part."""
        batches = copy.copy(self)
        batches.mean, batches.std = tuple(map(float, mean)), tuple(map(float, std))
        return batches

    def train(
        self, rows: Tensor, epoch_rows: int, config: TrialConfig, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's `steps_an_epoch` batches: `epoch_rows` of `rows` (int64), in random order and augmented.

        `generator` is on the CPU.
        """
        draw = look_up(ORDERS, config.sampling, "sampling")
        order = draw(rows, epoch_rows, generator, self.labels)
        normalized, steps = self._normalizer(config), steps_an_epoch(epoch_rows, config.batch_size)
        for images, labels in islice(self._stored(order, config.batch_size), steps):
            changed = augment(self._sized(images, config, generator), config, generator)
            yield normalized(changed), labels

    def evaluate(self, rows: Tensor, config: TrialConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of `rows` (int64) in their order, scaled, cut to the center and normalized."""
        normalized = self._normalizer(config)
        for images, labels in self._stored(rows, config.batch_size):
            yield normalized(center_crop(images, config, self.image_size(config))), labels

    def image_size(self, config: TrialConfig) -> int:
        """Return the pixels of the shorter side of the images in the batches of `config`."""
        return image_size(config, self.images.shape[1:3], self.labels.device.type)

    def _stored(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 [B, C, H, W], and labels of `rows`, `size` at a time, on the device."""
        image_rows, label_rows = (chunks(rows.to(each.device), size) for each in (self.images, self.labels))
        for of_images, of_labels in zip(image_rows, label_rows, strict=True):
            yield from_nhwc(self.images.index_select(0, of_images)), self.labels.index_select(0, of_labels)

    def _sized(self, images: Tensor, config: TrialConfig, generator: torch.Generator) -> Tensor:
        """Return stored images at the size that a trial trains on: random crops of them, or scaled ones."""
        side = self.image_size(config)
        if config.resized_crop:
            height, width = images.shape[2:]
            box = crop_boxes(height, width, config.resized_crop, len(images), generator)
            return resized_crop(as_floats(images), box.to(images.device, non_blocking=True), side)
        return images if side == min(images.shape[2:]) else scaled(images, side)

    def _normalizer(self, config: TrialConfig) -> Callable[[Tensor], Tensor]:
        """Return the function that normalizes a batch, once an epoch: building its tensors waits for a GPU."""
        values = normalization(config.normalization, self.mean, self.std)
        mean, std = (torch.tensor(value, dtype=torch.float32, device=self.labels.device) for value in values)
        layout = memory_format(config)
        return lambda images: normalize(images, mean, std).contiguous(memory_format=layout)


def _on_device(images: Pixels | StoredImages, device: torch.device) -> Tensor | Streamed:
    """Return all images as one tensor on `device`, or as a stream if they are too many or lie in files."""
    if device.type == "cuda" and images.nbytes > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return Streamed(images, device)
    if not isinstance(images, StoredImages):
        return _tensor(images).to(device)
    if device.type == "cpu":
        return Streamed(images, device)
    tensor = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for portion in portions(images.shape):
        tensor[portion] = torch.from_numpy(images[portion])
    return tensor


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return the array as a tensor that shares its memory."""
    with warnings.catch_warnings():  # arrays in the object store are read-only; nothing here writes to them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


MEMORY_FORMATS = {
    "auto": torch.contiguous_format,  # until `precision.resolve` has replaced it
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def memory_format(config: TrialConfig) -> torch.memory_format:
    """Return the layout of a trial's batches."""
    return look_up(MEMORY_FORMATS, config.memory_format, "memory_format")


def steps_an_epoch(epoch_rows: int, batch_size: int) -> int:
    """Return the number of batches in an epoch of `epoch_rows`.

    A last batch of a single row is left out, as batch norm cannot take it, unless it is the only one.
    """
    full, rest = divmod(epoch_rows, batch_size)
    return full + (rest > 1 or full == 0)


def balanced_order(rows: Tensor, epoch_rows: int, generator: torch.Generator, labels: Tensor) -> Tensor:
    """Draw `epoch_rows` of `rows`: every class among them equally often, ±1, and so every row of a class."""
    row_labels = labels.cpu()[rows]
    classes = torch.unique(row_labels)
    shares = torch.full((len(classes),), epoch_rows // len(classes))
    shares[torch.randperm(len(classes), generator=generator)[: epoch_rows % len(classes)]] += 1
    drawn = [
        epoch_order(rows[row_labels == label], int(share), generator)
        for label, share in zip(classes, shares, strict=True)
        if share
    ]
    return torch.cat(drawn)[torch.randperm(epoch_rows, generator=generator)]


def epoch_order(rows: Tensor, epoch_rows: int, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
    """Draw `epoch_rows` of `rows`: fresh permutations one after another, so rows are seen equally often, ±1."""
    rounds = math.ceil(epoch_rows / len(rows))
    shuffled = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[:epoch_rows]


ORDERS: dict[str, Callable[[Tensor, int, torch.Generator, Tensor], Tensor]] = {
    "shuffled": epoch_order,
    "balanced": balanced_order,
}
"""Values of `sampling` → what draws an epoch's rows."""


NORMALIZATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "imagenet": IMAGENET,
    "half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
"""Values of `normalization`, but for `train` → mean and deviation."""


def normalization(name: str, mean: Sequence[float], std: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and deviation that the field `normalization` names; `mean` and `std` are the training part's."""
    return look_up({"train": (mean, std), **NORMALIZATIONS}, name, "normalization")


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (images - mean) / std, gray images as three equal channels: float32 [B, 3, H, W], channels last.

    `images` are uint8, or floats in [0, 1]; `mean` and `std` are float32 [1] or [3].
    """
    batch, _, height, width = images.shape
    white = 1.0 if images.is_floating_point() else 255.0
    # One fused pass over whole rows of pixels: an inner loop of 3 channels takes five times as long.
    pixels = to_nhwc(images.expand(-1, 3, -1, -1)).view(batch, height, width * 3).to(torch.float32)
    scale, offset = (1 / (std * white)).expand(3).repeat(width), (-mean / std).expand(3).repeat(width)
    return from_nhwc(torch.addcmul(offset, pixels, scale).view(batch, height, width, 3))


def center_crop(images: Tensor, config: TrialConfig, side: int) -> Tensor:
    """Return stored images [B, C, H, W] as they are evaluated: scaled, then cut to a center crop of `side` pixels.

    The crop is `evaluation_crop` of the shorter side. If that is all of it, images keep their shape, except for trials
    on random resized crops, which are square.
    """
    full_side = round(side / config.evaluation_crop)
    images = images if full_side == min(images.shape[2:]) else scaled(images, full_side)
    if full_side == side and not config.resized_crop:
        return images
    top, left = (round((length - side) / 2) for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]


def scaled(images: Tensor, side: int) -> Tensor:
    """Scale uint8 images [B, C, H, W] to floats in [0, 1] whose shorter side is `side` pixels; bilinear, antialiased.

    This is torchvision's `resize` of float images.
    """
    shape = images.shape[2:]
    size = [side * length // min(shape) for length in shape]
    return functional.interpolate(as_floats(images), size, mode="bilinear", antialias=True).clamp_(0, 1)


def chunks(rows: Tensor, size: int) -> list[Tensor]:
    """Cut `rows` into pieces of `size`; the last may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
