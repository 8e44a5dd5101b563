"""Show where a convolutional net looks: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), computed by captum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.bundle.classifier import Classifier
from trainables.batches import normalization
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages
from trainables.errors import ConfigError
from trainables.models.view_mean import ViewMean

LEAST_SIDE = 224  # pixels of a written picture: maps over thumbnails are hard to see


class Overlays:
    """Writes heat maps of what speaks for an image's label, red the most, over the pixels that the model is given."""

    def __init__(self, classifier: Classifier, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._classifier = classifier
        self._folder = folder

    def write(self, names: Sequence[str], images: Pixels | StoredImages, numbers: NDArray[np.int64]) -> None:
        """Write NAME.png for each image.

        Args:
            names: [N] of the files.
            images: uint8 [N, H, W, C], as they are stored.
            numbers: [N] of the classes that the maps explain.
        """
        from PIL import Image

        members = (self._classifier, *self._classifier.others)
        rows, done = torch.arange(len(images)), 0
        fewest = min(member.config.micro_batch or member.config.batch_size for member in members)
        alike = [member.config.replace(micro_batch=fewest) for member in members]
        pairs = zip(members, alike, strict=True)
        batches = (member.batches(images, numbers).evaluate(rows, config) for member, config in pairs)
        for seen in zip(*batches, strict=True):
            heat = [self._heat(member, *batch) for member, batch in zip(members, seen, strict=True)]
            for picture in self._overlaid(seen[0][0], torch.stack(heat).mean(0)):
                Image.fromarray(picture).save(self._folder / f"{names[done]}.png")
                done += 1

    def _size(self) -> list[int]:
        """Return height and width of a written picture."""
        sides = self._classifier.input_size
        return [round(side * max(1, LEAST_SIDE / min(sides))) for side in sides]

    def _heat(self, member: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return a model's maps in the size of the written pictures, the largest value of each 1: [B, 1, H, W]."""
        heat = functional.interpolate(maps(member.module, inputs, labels), self._size(), mode="bilinear")
        return heat / heat.amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)

    def _overlaid(self, inputs: Tensor, heat: Tensor) -> NDArray[np.uint8]:
        """Return the pictures of a batch of the model's inputs under these maps, uint8 [B, H, W, 3]."""
        from matplotlib import colormaps

        classifier, stored = self._classifier, self._classifier.preprocessing
        mean, std = (
            torch.tensor(values, device=inputs.device).view(1, -1, 1, 1)
            for values in normalization(classifier.config.normalization, stored.mean, stored.std)
        )
        plain = functional.interpolate((inputs * std + mean).clamp(0, 1), self._size())
        colors = torch.from_numpy(colormaps["jet"](heat[:, 0].cpu().numpy())[..., :3]).permute(0, 3, 1, 2)
        mixed = torch.lerp(plain.cpu().double(), colors, heat.cpu().double() / 2)
        pictures: NDArray[np.uint8] = (mixed * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return pictures


def maps(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return Grad-CAM of `labels` (int64 [B]) for float32 `inputs` [B, 3, H, W]: float32 [B, 1, h, w], not negative.

    h × w is the size of the last spatial feature map in `module`.

    Raises:
        ConfigError: there is none.
    """
    from captum.attr import LayerGradCam

    cam = LayerGradCam(module, _last_spatial_layer(module, inputs[:1]))
    attributed: Tensor = cam.attribute(inputs.clone().requires_grad_(), target=labels, relu_attributions=True)
    found = attributed.detach().float()
    return module.mean_of_maps(found) if isinstance(module, ViewMean) else found


def _last_spatial_layer(module: nn.Module, inputs: Tensor) -> nn.Module:
    """Return the last layer with a feature map of more than a pixel, in the image's shape, and no attention after it.

    The only feature map of a vision transformer is that of its patches, before everything that it computes of them.
    """
    layers: list[nn.Module] = []
    height, width = inputs.shape[2:]

    def note(layer: nn.Module, _: object, output: object) -> None:
        if "Attention" in type(layer).__name__:
            layers.clear()
        elif isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            stretched = output.shape[2] * width / (output.shape[3] * height)  # large where channels come last
            if 0.5 <= stretched <= 2:
                layers.append(layer)

    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not layers:
        raise ConfigError(
            "--explain: no layer with a spatial feature map was found, which Grad-CAM needs; leave the option out"
        )
    return layers[-1]
