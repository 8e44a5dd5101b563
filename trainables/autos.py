"""The autos of a configuration that its initial weights decide: first layers, and size, scaling and normalization.

Those that hardware decides are in `precision`. Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainables.config import TrialConfig
from trainables.errors import look_up
from trainables.model_names import TORCHVISION
from trainables.models import inputs

SMALL_IMAGES = 64  # pixels; below, stem=auto is the small one, unless there are weights

OF_WEIGHTS = ("stem", "interpolation", "normalization")
"""Fields whose autos the initial weights decide, beside the size of images."""

LARGEST = {"cpu": 64, "cuda": 224}
"""Most pixels of an image's side under `image_size=0`, by device: what it can train on in reasonable time."""


STEMS: dict[str, Callable[[TrialConfig, int], str]] = {
    "auto": lambda config, size: "small" if size < SMALL_IMAGES and config.weights == "none" else "imagenet",
    "imagenet": lambda config, size: "imagenet",
    "small": lambda config, size: "small",
}
"""Values of `stem` → which first layers a configuration has for images of a size, in pixels."""

INTERPOLATIONS = {"auto": "bilinear", "bilinear": "bilinear", "bicubic": "bicubic"}
"""Values of `interpolation` → how pictures are scaled where no weights expect anything else."""


def image_size(config: TrialConfig, stored: Sequence[int], device: str) -> int:
    """Return the pixels of the sides of a trial's images on `device`, if they are `stored` as height × width.

    Raises:
        ConfigError: the weights are at a place that has none for the model.
    """
    if config.image_size:
        return config.image_size
    expected = inputs.of(config.model, config.weights) if config.stem != "small" else None
    return (expected.image_size if expected else 0) or min(*stored, LARGEST.get(device, min(stored)))


def stem(config: TrialConfig, size: int) -> str:
    """Return the first layers of a model for images of `size` pixels: with weights they are those that these know."""
    return look_up(STEMS, config.stem, "stem")(config, size)


def interpolation(config: TrialConfig) -> str:
    """Return how a trial's pictures are scaled."""
    expected = inputs.of(config.model, config.weights) if config.interpolation == "auto" else None
    return expected.interpolation if expected else look_up(INTERPOLATIONS, config.interpolation, "interpolation")


def normalization(config: TrialConfig) -> str:
    """Return the name of a trial's normalization.

    Raises:
        ConfigError: the weights expect one that has no name.
    """
    if config.normalization != "auto":
        return config.normalization
    return inputs.normalization(config.model, config.weights)


def resolved(config: TrialConfig, size: int) -> TrialConfig:
    """Return `config` for images of `size` pixels without the autos that weights decide.

    Raises:
        ConfigError: the weights expect images that cannot be had, or are at a place that has none for the model.
    """
    return config.replace(
        image_size=size,
        stem=stem(config, size) if config.model in TORCHVISION else config.stem,
        interpolation=interpolation(config),
        normalization=normalization(config),
    )
