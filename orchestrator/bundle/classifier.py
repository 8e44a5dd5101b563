"""A trained model with its preprocessing, from images to labels and probabilities. Needs no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as unpack
from torch import Tensor, nn

from orchestrator.bundle.documents import Member, Preprocessing
from trainables.batches import Batches
from trainables.calibration import log_probabilities, mean_probabilities
from trainables.config import TrialConfig
from trainables.datasets import decoder, pictures
from trainables.datasets.decoder import Reserve, no_limit
from trainables.datasets.formats import PictureError
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages, gathered
from trainables.errors import WeightsError, shown
from trainables.evaluation import as_predicted, predict, trained_model
from trainables.learner import part

if TYPE_CHECKING:
    from PIL import Image

VIEW = ("image_size", "evaluation_crop", "normalization", "fit", "evaluation_views", "interpolation")
"""Fields of a configuration that say what a model sees of a picture; members of an ensemble may differ in them."""

READ_AHEAD = 256  # images, at least, that are read before the model computes


class ImageError(ValueError):
    """An input that is no image; the message says which, why, and what is accepted."""


class Predictions(NamedTuple):
    """A model's output for N images."""

    labels: list[str]  # [N], the likeliest class of each image
    probabilities: NDArray[np.float64]  # [N, C], columns as in the classifier's `classes`


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode, and the preprocessing with which it was scored."""

    module: nn.Module  # float32 [B, 3, H, W], normalized → logits [B, C]
    config: TrialConfig
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float | None  # divides the logits before the softmax, if one was fitted
    device: torch.device

    others: tuple[Classifier, ...] = ()  # further members of an ensemble: probabilities are the mean of all
    mean_temperature: float | None = None  # of that mean

    @classmethod
    def of_members(
        cls,
        members: Sequence[Member],
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        temperature: float | None,
        weights: bytes,
        device: str | None = None,
    ) -> Classifier:
        """Build the model, or the models of an ensemble, on `device`, by default the GPU if torch has one.

        Args:
            temperature: of the one model, or of the mean of several.
            weights: safetensors.

        Raises:
            WeightsError: the weights do not fit a model.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            tensors = unpack(weights)
        except SafetensorError as error:
            raise WeightsError(str(error)) from error
        alone = len(members) == 1
        made: list[Classifier] = []
        for number, member in enumerate(members):
            config = as_predicted(TrialConfig.from_dict(member.config))
            seen, own = preprocessing, tensors
            if not alone:
                seen = replace(preprocessing, **{name: getattr(config, name) for name in VIEW})
                own = part(tensors, f"{number}.") | {name: tensors[f"0.{name}"] for name in member.shared}
            model = trained_model(config, own, len(classes), seen.image_size, place)
            made.append(cls(model, config, classes, seen, member.temperature, place))
        return made[0] if alone else replace(made[0], others=tuple(made[1:]), mean_temperature=temperature)

    def predict(self, images: Iterable[Any]) -> Predictions:
        """Return labels and probabilities of `images`: paths, Pillow images, or uint8 arrays [H, W] or [H, W, C].

        C is 1, 3, or 4 with transparency; images may be of any size, and sizes may differ.

        Raises:
            ImageError: something is no image, or cannot be read.
        """
        if isinstance(images, str | Path) or not isinstance(images, Iterable):
            raise ImageError(f"{images!r}: a list of images is needed, also for a single image")
        chunks = _chunks(map(self.stored, images), self.chunk_size)
        parts = [self.probabilities(gathered(chunk)) for chunk in chunks]
        probabilities = np.concatenate(parts) if parts else np.empty((0, len(self.classes)))
        return Predictions([self.classes[number] for number in probabilities.argmax(1)], probabilities)

    def stored(self, image: str | Path | Image.Image | NDArray[np.uint8]) -> Pixels:
        """Return `image` as the training data were stored: whole, uint8 [h, w, C], perhaps scaled down.

        Raises:
            ImageError: it is no image, or cannot be read.
        """
        if isinstance(image, str | Path):
            decoded = pictures.attempt(Path(image), self.decode)
            if isinstance(decoded, str):
                raise ImageError(f"{shown(image)}: {decoded}")
            return decoded
        try:
            return self._suited(decoder.convert(_as_pillow(image), *self._reading))
        except PictureError as error:
            raise ImageError(str(error)) from error

    def decode(self, encoded: bytes, reserve: Reserve = no_limit) -> Pixels:
        """Return an encoded image as the training data were stored; raise PictureError if it cannot be read."""
        return self._suited(decoder.read(encoded, *self._reading, reserve).pixels)

    @property
    def _reading(self) -> tuple[str, int | None]:
        """The background and the stored side with which pictures are read."""
        stored = self.preprocessing
        side = stored.height if stored.stored_side is None and stored.height == stored.width else stored.stored_side
        return "#{:02x}{:02x}{:02x}".format(*stored.background), side

    def _suited(self, picture: Pixels) -> Pixels:
        """Return a picture in the channels of the training data and, as in earlier versions, in their shape."""
        stored = self.preprocessing
        size = None if stored.stored_side is not None else (stored.height, stored.width)
        return pictures.fitted(picture, size, stored.channels)

    def probabilities(self, images: Pixels | StoredImages) -> NDArray[np.float64]:
        """Return float64 probabilities [N, classes] of stored images, uint8 [N, H, W, C], at the model's temperature.

        Of an ensemble they are the mean of its members' probabilities, at a temperature of its own.

        In float64 no rounding makes the likeliest class equal to another one, so labels are those of the logits.
        """
        members = (self, *self.others)
        logits = [member.logits(images).cpu() for member in members]  # not every device has float64
        mean = mean_probabilities(logits, [member.temperature for member in members])
        if self.others:
            mean = (log_probabilities(mean) / (self.mean_temperature or 1.0)).softmax(1)
        probabilities: NDArray[np.float64] = mean.numpy()
        return probabilities

    def logits(self, images: Pixels | StoredImages) -> Tensor:
        """Return the logits of stored images, uint8 [N, H, W, C]: float32 [N, classes], as in the loop's evaluation."""
        return predict(self.config, self.batches(images), torch.arange(len(images)), self.module)[0]

    def batches(self, images: Pixels | StoredImages, labels: NDArray[np.int64] | None = None) -> Batches:
        """Return batches of stored images with these labels, all 0 by default, as the model was evaluated on."""
        labels = np.zeros(len(images), np.int64) if labels is None else labels
        stored, shape = self.preprocessing, None
        if stored.stored_side is None and self.config.evaluation_crop == 1 and not self.config.resized_crop:
            shape = stored.height, stored.width  # earlier versions kept it
        return Batches(images, labels, stored.mean, stored.std, self.device, stored.background, shape)

    def views(self, images: Iterable[Any]) -> Pixels:
        """Return what the model sees of `images`, as `predict` takes them: uint8 [N, S, S, C], before normalization."""
        stored = gathered([self.stored(image) for image in images])
        return self.batches(stored).views(torch.arange(len(stored)), self.config).cpu().numpy()

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's inputs in pixels."""
        return self._sizes()[1]

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of `views`: more than the model's inputs if `evaluation_crop` is less than 1."""
        return (*self._sizes()[0], self.preprocessing.channels)

    def _sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        stored = self.preprocessing
        return self.batches(np.zeros((1, stored.height, stored.width, stored.channels), np.uint8)).sizes(self.config)

    @property
    def chunk_size(self) -> int:
        """The number of images to compute at a time: full batches, as in an evaluation of all of them."""
        return self.config.batch_size * -(-READ_AHEAD // self.config.batch_size)


def _as_pillow(image: Any) -> Image.Image:
    """Return a Pillow image, or an array as one; raise ImageError for anything else."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{type(image).__name__} is no type of image: give a path, a Pillow image or a uint8 array")
    array = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or not array.size:
        raise ImageError(
            f"an array of {image.dtype} {list(image.shape)} is no image: uint8 is needed, [H, W], [H, W, 1], "
            "[H, W, 3] or [H, W, 4]"
        )
    return Image.fromarray(array)


def _chunks(images: Iterator[Pixels], size: int) -> Iterator[list[Pixels]]:
    while chunk := list(islice(images, size)):
        yield chunk
