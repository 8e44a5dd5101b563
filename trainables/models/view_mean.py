"""The mean of a model's outputs over several views of a picture, such as the picture and its mirror image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.errors import look_up
from trainables.models import heads

View = Callable[[Tensor], Tensor]


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(3)


EVALUATION_VIEWS: dict[str, tuple[View, ...]] = {"one": (_as_it_is,), "flip": (_as_it_is, _mirrored)}
"""Values of `evaluation_views` → what makes each view of images [B, 3, H, W], and undoes it."""


class ViewMean(nn.Module):
    """A model that predicts by the mean of its features over views: float [B, 3, H, W] → logits [B, C].

    It shares all tensors with the model that it is made of. The mean is that of the inputs of a head with a hidden
    layer; of any other model it is that of the logits, which is the same for a linear head.
    """

    def __init__(self, model: nn.Module, views: tuple[View, ...]) -> None:
        super().__init__()
        dense = next((module for module in model.modules() if isinstance(module, heads.DenseHead)), None)
        self.base = model if dense is None else heads.with_head(model, nn.Identity())
        self.head = nn.Identity() if dense is None else dense
        self._views = views

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images`, of all views in one pass."""
        outputs: Tensor = self.base(torch.cat([view(images) for view in self._views]))
        logits: Tensor = self.head(outputs.reshape(len(self._views), -1, *outputs.shape[1:]).mean(0))
        return logits

    def mean_of_maps(self, maps: Tensor) -> Tensor:
        """Return the means of all views' maps, each turned back: float [V·B, 1, h, w] → [B, 1, h, w]."""
        parts = maps.reshape(len(self._views), -1, *maps.shape[1:])
        return torch.stack([view(part) for view, part in zip(self._views, parts, strict=True)]).mean(0)


def evaluated(config: TrialConfig, model: nn.Module) -> nn.Module:
    """Return what predicts with `model`: itself, or the mean over its `evaluation_views`."""
    views = views_of(config)
    return model if len(views) == 1 else ViewMean(model, views)


def views_of(config: TrialConfig) -> tuple[View, ...]:
    """Return the views of a picture that a prediction is made of."""
    return look_up(EVALUATION_VIEWS, config.evaluation_views, "evaluation_views")
