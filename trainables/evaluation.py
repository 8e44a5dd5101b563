"""What a trial's weights are worth on images that it never saw: the sealed test set, once it is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables import loop
from trainables.batches import Batches, memory_format
from trainables.config import TrialConfig
from trainables.errors import WeightsError
from trainables.models import build


def trained(
    config: TrialConfig, weights: Mapping[str, Tensor], classes: int, image_size: int, device: torch.device
) -> nn.Module:
    """The model of `config` with all its weights, in evaluation mode, without gradients.

    Raises:
        WeightsError: they are not the model's.
    """
    with torch.random.fork_rng(devices=()):  # weights are drawn before they are loaded
        model = build.build(config, classes, image_size, initialized=False)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(" ".join(str(error).split())[:200]) from error
    if device.type != "cpu":  # as in training
        model = model.to(memory_format=memory_format(config))
    return model.to(device).eval().requires_grad_(False)


def measure(
    config: TrialConfig,
    weights: Mapping[str, NDArray[Any]],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]],
    classes: int,
    temperature: float | None,
) -> dict[str, Any]:
    """Figures, as of `loop.final_metrics`, of a model with `weights` on all `images` [N, H, W, C].

    Args:
        config: of the trial, its autos resolved and its image size as it was.
        weights: by name, as a trial's last checkpoint has them.
        statistics: mean and deviation of the trial's training part.
        temperature: that was fitted to the model, if one was.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = Batches(images, labels, *statistics, device)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    model = trained(config, tensors, classes, batches.image_size(config), device)
    return loop.measure(config, batches, torch.arange(len(labels)), model, temperature)
