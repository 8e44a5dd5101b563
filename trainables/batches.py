"""Batches of a trial: views of the stored images, augmented and normalized by batched operations on the device.

Inside, views are [B, C, H, W] with the strides of the NHWC storage (channels last); flip and crop move
bytes, the other augmentations compute on float32 in [0, 1]. All random parameters come from one generator on
the CPU, so a CPU and a GPU see the same augmentation. Within an epoch nothing waits for the device.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables import autos, memory
from trainables.augmentation import augment, draw
from trainables.config import TrialConfig
from trainables.datasets.source import WHITE, Pixels
from trainables.datasets.stored_images import StoredImages, portions
from trainables.errors import look_up
from trainables.mixing import draw_mix, mixed
from trainables.models.inputs import NORMALIZATIONS
from trainables.operators import from_nhwc, to_nhwc
from trainables.views import Color, Extra, Resident, Streamed, center_crop, frames, one_ahead, random_frames

if TYPE_CHECKING:
    from trainables.splits import SearchData


class Batches:
    """A data set on the device, which yields its batches under any configuration and keeps nothing of a trial.

    Args:
        images: uint8 [N, H, W, C], C of 1 or 3; may be read-only. On the CPU they are shared, or stay in their files. A
            GPU takes all images of one shape at once, unless they need more than `memory.budget`. The
            content of batches is the same either way, but for rounding.
        labels: integers [N].
        mean, std: of the training part, for images in [0, 1]; C values each.
        device: where labels are moved once, and images once or batch by batch.
        background: the color around pictures that are padded.
        shape: height and width in pixels of the model's inputs, whatever a configuration says: pictures are squashed
            to that. Models of earlier versions may need it, as their images kept their shape.
        classes: how many there are, which only mixed targets need.

    Batches are float32 images [B, 3, S, S] in the layout `memory_format(config)`, and int64 labels [B] or, where a
    batch's images are mixed, float32 [B, classes], each class's share of an image's target. See `trainables.views` for
    what is seen of a picture.
    """

    def __init__(
        self,
        images: Pixels | StoredImages,
        labels: NDArray[np.integer],
        mean: Sequence[float] | NDArray[np.floating],
        std: Sequence[float] | NDArray[np.floating],
        device: torch.device,
        background: Color = WHITE,
        shape: tuple[int, int] | None = None,
        classes: int = 0,
    ) -> None:
        self._stored, self.background = StoredImages.of(images), background
        self.images = _on_device(self._stored, device, background)
        self.labels = _tensor(labels).to(device, torch.int64)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._shape, self._classes = shape, classes

    @classmethod
    def of(cls, data: SearchData, device: torch.device) -> Batches:
        """Return the batches of all rows of `data`, normalized by its mean and deviation."""
        rows = data.images, data.labels, data.mean, data.std
        return cls(*rows, device, data.background, classes=len(data.classes))

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
        order = look_up(ORDERS, config.sampling, "sampling")(rows, epoch_rows, generator, self.labels)
        steps, size = steps_an_epoch(epoch_rows, config.batch_size), self._size(self.image_size(config))

        def chosen() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for chunk in chunks(order, config.batch_size)[:steps]:
                sizes = self.images.sizes(chunk)
                boxes = random_frames(sizes, config, generator) if config.resized_crop else self._frames(sizes, config)
                yield chunk, boxes, draw(len(chunk), generator)

        normalized = self._normalizer(config)
        for views, (labels, drawn) in self._views(chosen(), size, autos.interpolation(config), keep=True):
            images = normalized(augment(from_nhwc(views), drawn, config))
            images = augment(images, drawn, config, normalized=True)
            mix = draw_mix(drawn, config, size)
            yield (images, labels) if mix is None else mixed(images, labels, self._classes, mix)

    def evaluate(self, rows: Tensor, config: TrialConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of `rows` (int64) in their order, scaled, cut to the center and normalized."""
        normalized, (_, wanted) = self._normalizer(config), self.sizes(config)
        for views, labels in self._evaluated(rows, config):
            yield normalized(from_nhwc(center_crop(views, wanted))), labels

    def views(self, rows: Tensor, config: TrialConfig) -> Tensor:
        """Return what is evaluated of `rows`, before `evaluation_crop` and normalization: uint8 [N, S, S, C]."""
        return torch.cat([views for views, _ in self._evaluated(rows, config)])

    def _evaluated(self, rows: Tensor, config: TrialConfig) -> Iterator[tuple[Tensor, Tensor]]:
        def chosen() -> Iterator[tuple[Tensor, Tensor, None]]:
            for chunk in chunks(rows, config.micro_batch or config.batch_size):
                yield chunk, self._frames(self.images.sizes(chunk), config), None

        size, _ = self.sizes(config)
        seen = self._views(chosen(), size, autos.interpolation(config))
        return ((views, labels) for views, (labels, _) in seen)

    def digests(self) -> NDArray[np.void]:
        """Return 16 bytes for each row, V16 [N], which are equal for pictures that look the same."""
        return self._stored.digests()

    def image_size(self, config: TrialConfig) -> int:
        """Return the pixels of the sides of the images in the batches of `config`."""
        return autos.image_size(config, self.images.shape[1:3], self.labels.device.type)

    def sizes(self, config: TrialConfig) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return height and width of the views that are evaluated, and of the center crop of them."""
        side = self.image_size(config)
        return self._size(round(side / config.evaluation_crop)), self._size(side)

    def _size(self, side: int) -> tuple[int, int]:
        """Return height and width of views whose shorter side is `side` pixels."""
        height, width = self._shape or (side, side)
        return side * height // min(height, width), side * width // min(height, width)

    def _frames(self, sizes: Tensor, config: TrialConfig) -> Tensor:
        return frames(sizes, config if self._shape is None else config.replace(fit="squash"))

    def _views(
        self,
        chosen: Iterator[tuple[Tensor, Tensor, Extra]],
        size: tuple[int, int],
        interpolation: str,
        keep: bool = False,
    ) -> Iterator[tuple[Tensor, tuple[Tensor, Extra]]]:
        """Yield the views of rows and boxes, uint8 [B, H, W, C], their labels and what comes with them, on the device.

        Those for a GPU are made one batch ahead, if that is the CPU's work. With `keep` they will be needed again.
        """
        device = self.labels.device
        jobs = (
            (
                partial(self.images.view, rows, boxes, size, interpolation, keep),
                (rows.to(device, non_blocking=True), extra),
            )
            for rows, boxes, extra in chosen
        )
        ahead = device.type != "cpu" and isinstance(self.images, Streamed)
        for views, (rows, extra) in one_ahead(jobs) if ahead else ((job(), rest) for job, rest in jobs):
            yield views.to(device, non_blocking=True), (self.labels.index_select(0, rows), extra)

    def _normalizer(self, config: TrialConfig) -> Callable[[Tensor], Tensor]:
        """Return the function that normalizes a batch, once an epoch: building its tensors waits for a GPU."""
        values = normalization(autos.normalization(config), self.mean, self.std)
        mean, std = (torch.tensor(value, dtype=torch.float32, device=self.labels.device) for value in values)
        layout = memory_format(config)
        return lambda images: normalize(images, mean, std).contiguous(memory_format=layout)


def _on_device(images: StoredImages, device: torch.device, background: Color) -> Resident | Streamed:
    """Return all images on a GPU or, on other devices and where they are too many or of many shapes, as a stream."""
    if device.type != "cuda" or not images.uniform or images.nbytes > memory.budget(device):
        return Streamed(images, device, background)
    tensor = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for portion in portions(images.shape):
        tensor[portion] = torch.from_numpy(images[portion])
    return Resident(tensor, background)


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


def normalization(name: str, mean: Sequence[float], std: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and deviation that the field `normalization` names; `mean` and `std` are the training part's.

    An auto is that of a configuration without weights; with weights `autos.resolved` has replaced it.
    """
    own = (mean, std)
    return look_up({"auto": own, "train": own, **NORMALIZATIONS}, name, "normalization")


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


def chunks(rows: Tensor, size: int) -> list[Tensor]:
    """Cut `rows` into pieces of `size`; the last may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
