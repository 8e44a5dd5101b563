"""What a trial's weights are worth on images that it never saw: the sealed test set, once it is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables import loop, models
from trainables.batches import Batches
from trainables.config import TrialConfig


def measure(
    config: TrialConfig,
    weights: Mapping[str, NDArray[Any]],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]],
    classes: int,
) -> dict[str, Any]:
    """Figures, as of `loop.final_figures`, of a model with `weights` on all `images` [N, H, W, C].

    Args:
        config: of the trial, its autos resolved and its image size as it was.
        weights: by name, as a trial's last checkpoint has them.
        statistics: mean and deviation of the trial's training part.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = Batches(images, labels, *statistics, device)
    model = models.build(config, classes, batches.image_size(config), initialized=False)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return loop.measure(config, batches, torch.arange(len(labels)), model.to(device))
