"""A trained model with its preprocessing: images in, labels and probabilities out. Needs no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as unpack
from torch import Tensor, nn

from trainables import loop
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import pictures
from trainables.datasets.source import Pixels
from trainables.errors import WeightsError
from trainables.evaluation import trained

if TYPE_CHECKING:
    from PIL import Image

AT_ONCE = 256  # images at least: so many are read before the model is asked


class ImageError(ValueError):
    """Something that is no image; the message says which, why, and what would be one."""


class Predictions(NamedTuple):
    """What a model says of N images."""

    labels: list[str]  # the likeliest class of each
    probabilities: NDArray[np.float64]  # [N, C], columns as in the classifier's `classes`


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode, and how images were made its batches when it was scored."""

    module: nn.Module  # float32 [B, 3, H, W], normalised → logits [B, C]
    config: TrialConfig
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # of images as they were stored: height, width, channels
    mean: tuple[float, ...]  # of the training part, for images in [0, 1]
    std: tuple[float, ...]
    temperature: float | None  # that logits are divided by before the softmax, if one was fitted
    device: torch.device

    @classmethod
    def of(
        cls,
        config: TrialConfig,
        image_size: int,
        classes: tuple[str, ...],
        preprocessing: Mapping[str, Any],
        temperature: float | None,
        weights: bytes,
        device: str | None = None,
    ) -> Classifier:
        """What a bundle describes, on `device`, by default the GPU, if torch has one.

        Args:
            config: without an auto.
            image_size: pixels, the smaller side of what the model is given.
            preprocessing: `height`, `width` and `channels` of stored images, `mean` and `std` of the training part.
            weights: safetensors.

        Raises:
            WeightsError: they are not the model's.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            tensors = unpack(weights)
        except SafetensorError as error:
            raise WeightsError(str(error)) from error
        return cls(
            trained(config, tensors, len(classes), image_size, place),
            config,
            classes,
            (preprocessing["height"], preprocessing["width"], preprocessing["channels"]),
            tuple(preprocessing["mean"]),
            tuple(preprocessing["std"]),
            temperature,
            place,
        )

    def predict(self, images: Iterable[Any]) -> Predictions:
        """Labels and probabilities of `images`: paths, Pillow's images, or uint8 arrays [H, W] or [H, W, C].

        C is 1, 3, or 4 with transparency, which is dropped; sizes are free and may differ.

        Raises:
            ImageError: something is no image, or cannot be read.
        """
        if isinstance(images, str | Path) or not isinstance(images, Iterable):
            raise ImageError(f"{images!r}: a list of images is needed, of one image as well")
        found = [self.probabilities(np.stack(some)) for some in _portions(map(self.stored, images), self.at_once)]
        probabilities = np.concatenate(found) if found else np.empty((0, len(self.classes)))
        return Predictions([self.classes[number] for number in probabilities.argmax(1)], probabilities)

    def stored(self, image: str | Path | Image.Image | NDArray[np.uint8]) -> Pixels:
        """`image` as the training data were stored: uint8 [H, W, C], scaled and cut about its middle.

        Raises:
            ImageError: it is no image, or cannot be read.
        """
        if isinstance(image, str | Path):
            found = pictures.attempt(Path(image), self.decode)
            if isinstance(found, str):
                raise ImageError(f"{image}: {found}")
            return found  # type: ignore[no-any-return]
        try:
            return pictures.image_pixels(_opened(image), self.shape[:2], self.shape[2])
        except (OSError, ValueError) as error:  # OSError: a file that Pillow has opened and not read yet
            raise ImageError(str(error)) from error

    def decode(self, encoded: bytes) -> Pixels:
        """As `stored`, of an encoded image; raises what Pillow raises."""
        return pictures.pixels(encoded, self.shape[:2], self.shape[2])

    def probabilities(self, images: Pixels) -> NDArray[np.float64]:
        """Of `images` as they are stored, uint8 [N, H, W, C], at the model's temperature: float64 [N, classes].

        In float64 no rounding makes the likeliest class equal to another one, so labels are those of the logits.
        """
        logits = self.logits(images).double()
        found: NDArray[np.float64] = (logits / (self.temperature or 1.0)).softmax(1).cpu().numpy()
        return found

    def logits(self, images: Pixels) -> Tensor:
        """Of `images` as they are stored, uint8 [N, H, W, C]: float32 [N, classes], as in the loop's evaluation."""
        batches = Batches(images, np.zeros(len(images), np.int64), self.mean, self.std, self.device)
        return loop.predict(self.config, batches, torch.arange(len(images)), self.module)[0]

    @property
    def at_once(self) -> int:
        """How many images to give at a time: whole batches, as an evaluation of all of them would make."""
        return self.config.batch_size * -(-AT_ONCE // self.config.batch_size)


def _opened(image: Any) -> Image.Image:
    """An array as an image of Pillow's."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    found = image[..., 0] if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 1 else image
    if not isinstance(found, np.ndarray):
        raise ImageError(
            f"a {type(image).__name__} is no image: a path, an image of Pillow's or a uint8 array is needed"
        )
    if (
        found.dtype != np.uint8
        or not (found.ndim == 2 or (found.ndim == 3 and found.shape[2] in (3, 4)))
        or not found.size
    ):
        raise ImageError(
            f"an array of {image.dtype} {list(image.shape)} is no image: uint8 is needed, [H, W], [H, W, 1], "
            "[H, W, 3] or [H, W, 4]"
        )
    return Image.fromarray(found)


def _portions(images: Iterator[Pixels], size: int) -> Iterator[list[Pixels]]:
    while some := list(islice(images, size)):
        yield some
