"""Bundles of models that are trained in milliseconds, with what the loop makes of the core."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from torch import Tensor

from orchestrator.bundle import bundle
from orchestrator.record.kept_weights import Weights
from orchestrator.record.state import TrialRecord
from trainables.loop import TrialState, predict, prepared, train
from trainables.splits import SearchData

RECORD = {"plan": {"dataset": "stripes", "name": "tiny"}, "split": {"test_rows": 36}}


@dataclass(frozen=True)
class Made:
    """A bundle, and where it comes from."""

    folder: Path
    data: SearchData
    trial: TrialRecord
    logits: Tensor  # of the core's rows, as the loop's evaluation has them

    @property
    def validation(self) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        """The core's images as they are stored, uint8 [H, W, C]."""
        return [self.data.images[row] for row in self.data.validation]

    @property
    def truth(self) -> Tensor:
        """The core's labels, int64."""
        return torch.from_numpy(self.data.labels[self.data.validation])

    @property
    def labels(self) -> list[str]:
        """What the model says of the core."""
        return [self.data.classes[number] for number in self.logits.argmax(1)]


def make(folder: Path, channels: int = 1, opened: bool = False, **fields: Any) -> Made:
    """Train a tiny trial with these fields, and write its bundle; weights at the best epoch."""
    config, found = tiny.config(**fields), tiny.search_data(opened)
    if channels == 3:
        images, statistics = np.repeat(found.images, 3, axis=3), (np.repeat(found.mean, 3), np.repeat(found.std, 3))
        found = replace(found, images=images, mean=statistics[0], std=statistics[1])
    data = tiny.select_from(config, found)
    state = TrialState.start(config, data, tiny.CPU)
    data = prepared(config, data, state)
    epochs = [epoch.to_dict() for epoch in train(config, data, state)]
    tensors = {name: tensor.numpy().copy() for name, tensor in state.kept_weights().items()}
    weights = Weights(tensors, state.calibration)
    trial = TrialRecord(0, {}, config.to_dict(), 0.0, score=state.score, best_epoch=state.best_epoch, epochs=epochs)
    form = {"precision": config.precision, "memory_format": config.memory_format}
    trial.worker = {"format": form, "image_size": data.image_size}
    trial.end = {"status": "completed", "stop_reason": "budget", "error": None}
    assert bundle.write([trial], found, lambda _: weights, folder, RECORD) is trial
    state.model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    logits, _ = predict(config, data.batches, data.scored_rows, state.network)
    return Made(folder, found, trial, logits)
