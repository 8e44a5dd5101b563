"""Inputs: the images that weights expect, as their publishers say: size, normalization, interpolation.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError
from trainables.field_values import is_place
from trainables.model_names import HUB, TIMM, TORCHVISION, is_timm
from trainables.models import nets

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, as torchvision's weights expect them."""

NORMALIZATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "imagenet": IMAGENET,
    "half": ((0.5,), (0.5,)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "dpn": ((0.48627451, 0.45882353, 0.40784314), (0.23482447,) * 3),
    "none": ((0.0,), (1.0,)),
}
"""Values of `normalization` → mean and deviation of red, green and blue, or of each; but for `train`, the rows' own."""

CONVERTING = ("googlenet", "inception_v3")
"""Models that torchvision builds with a conversion of ImageNet's normalization to 0.5 only for `weights=imagenet`."""


@dataclass(frozen=True)
class Inputs:
    """The images that weights expect. Empty numbers stand for the training rows' own."""

    image_size: int  # pixels of a side; 0: not known
    mean: tuple[float, ...]  # of red, green and blue in 0..1
    std: tuple[float, ...]
    interpolation: str


_known: dict[tuple[str, str], Inputs | None] = {}  # of (model, weights): a worker may be without access to the file


def remember(model: str, weights: str, inputs: Inputs | None) -> None:
    """Take the inputs that another process found for a model with these weights."""
    _known[model, weights] = inputs


def of(model: str, weights: str) -> Inputs | None:
    """Return what the weights `weights` of `model` expect; None without weights, or where nobody says.

    Raises:
        ConfigError: the weights are at a place that has none for this model.
        WeightsError: they are to be downloaded, and cannot be.
    """
    if weights == "none":
        return None
    if (model, weights) not in _known:
        _known[model, weights] = _found(model, weights)
    return _known[model, weights]


def _found(model: str, weights: str) -> Inputs | None:
    if weights.startswith(HUB):
        from trainables.models import sources

        return described_in(nets.description(sources.file_of(model, weights).parent))
    if is_timm(weights):
        return _of_timm(weights.removeprefix(TIMM))
    path = nets.file_of(model, Path(weights).expanduser()) if is_place(weights) else None
    described = described_in(nets.description(path.parent)) if path is not None else None
    if described is not None:
        return described
    if is_timm(model):
        stem = "" if path is None else path.name.removesuffix(path.suffix)
        name = model.removeprefix(TIMM)
        return _of_timm(stem if stem.startswith(f"{name.partition('.')[0]}.") else name) or _of_timm(name)
    return _of_torchvision(model, path) if model in TORCHVISION else None


def described_in(description: Mapping[str, Any]) -> Inputs | None:
    """Return the inputs in a `config.json`, of a download from the Hugging Face Hub or of a bundle; None without."""
    published, own = description.get("pretrained_cfg"), description.get("config")
    try:
        if isinstance(published, dict):
            mean, std = (tuple(map(float, published[name])) for name in ("mean", "std"))
            return Inputs(int(published["input_size"][-1]), mean, std, _known_interpolation(published["interpolation"]))
        if isinstance(own, dict):
            converted = own.get("model") in CONVERTING and own.get("weights") == "imagenet"  # in the net, then
            mean, std = map(tuple, NORMALIZATIONS.get("half" if converted else own["normalization"], ((), ())))
            return Inputs(int(own["image_size"]), mean, std, own.get("interpolation", "bilinear"))
    except (LookupError, TypeError, ValueError):
        pass
    return None


def _of_timm(name: str) -> Inputs | None:
    """Return what timm says of its weights NAME or NAME.TAG."""
    try:
        import timm
    except ImportError:
        return None
    try:
        published = timm.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # there is no such tag
        return None
    if published is None:
        return None
    interpolation = _known_interpolation(published.interpolation)
    return Inputs(published.input_size[-1], tuple(published.mean), tuple(published.std), interpolation)


def _of_torchvision(model: str, path: Path | None) -> Inputs:
    """Return what torchvision says of a file that it publishes for `model`, by its name, or of its best one."""
    from torchvision.models import get_model_weights

    every = get_model_weights(model)
    named = (one for one in every if path is not None and one.url.endswith(f"/{path.name}"))
    transforms = next(named, every.DEFAULT).transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if path is not None and model in CONVERTING:
        mean = std = (0.5,) * 3
    return Inputs(transforms.crop_size[0], mean, std, _known_interpolation(transforms.interpolation.value))


def _known_interpolation(name: str) -> str:
    return "bicubic" if name == "bicubic" else "bilinear"


def normalization(model: str, weights: str) -> str:
    """Return the name of the normalization that the weights expect; `train` without weights, or where nobody says.

    Raises:
        ConfigError: the weights expect one that has no name.
    """
    expected = of(model, weights)
    if expected is None or not expected.mean:
        return "train"
    for name, (mean, std) in NORMALIZATIONS.items():
        pairs = zip((*expected.mean, *expected.std), (*_three(mean), *_three(std)), strict=True)
        if all(abs(one - other) < 5e-4 for one, other in pairs):
            return name
    raise ConfigError(
        f"normalization=auto: weights={weights} of model={model} expect images of mean {expected.mean} and deviation "
        f"{expected.std}, for which there is no name; set normalization to the nearest one (allowed: "
        f"{', '.join(('train', *NORMALIZATIONS))})"
    )


def _three(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(values) * (1 if len(values) == 3 else 3)
