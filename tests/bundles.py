"""Bundles of models that are trained in milliseconds, with the loop's logits for the validation set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from torch import Tensor

from orchestrator.bundle import bundle
from orchestrator.bundle.contents import choices
from orchestrator.bundle.documents import SEARCHED
from orchestrator.record.epochs import Epochs
from orchestrator.record.facts import Spec, Worker
from orchestrator.record.kept_weights import Calibration, Weights
from orchestrator.record.state import End, TrialRecord
from trainables.config import TrialConfig
from trainables.evaluation import predict
from trainables.loop import TrialState, prepared, train
from trainables.splits import SearchData

SPEC = Spec(plan={"dataset": "stripes", "name": "tiny"}, split={"test_rows": 36})


@dataclass(frozen=True)
class Made:
    """A bundle, and the trial and data that it was made from."""

    folder: Path
    data: SearchData
    trial: TrialRecord
    logits: Tensor  # of the validation rows, as the loop's evaluation has them

    @property
    def validation(self) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        """The validation set's images as they are stored, uint8 [H, W, C]."""
        return [self.data.images[row] for row in self.data.validation]

    @property
    def truth(self) -> Tensor:
        """The validation set's labels, int64."""
        return torch.from_numpy(self.data.labels[self.data.validation])

    @property
    def labels(self) -> list[str]:
        """The model's labels for the validation set."""
        return [self.data.classes[number] for number in self.logits.argmax(1)]


def worker(config: TrialConfig) -> Worker:
    """Return the worker of a trial with this configuration, which has no auto."""
    return Worker(format={"precision": config.precision, "memory_format": config.memory_format})


def make(folder: Path, channels: int = 1, opened: bool = False, **fields: Any) -> Made:
    """Train a tiny trial with these fields, and write its bundle with the weights of the best epoch."""
    config, search_data = tiny.config(**fields), tiny.search_data(opened)
    if channels == 3:
        images = np.repeat(np.asarray(search_data.images), 3, axis=3)
        mean, std = (np.repeat(values, 3) for values in (search_data.mean, search_data.std))
        search_data = replace(search_data, images=images, mean=mean, std=std)
    data = tiny.select_from(config, search_data)
    state = TrialState.start(config, data, tiny.CPU)
    data = prepared(data, state)
    epochs = [epoch.to_dict() for epoch in train(data, state)]
    tensors = {name: tensor.numpy().copy() for name, tensor in state.kept_weights().items()}
    weights = Weights(tensors, Calibration(**state.calibration) if state.calibration else None)
    trial = TrialRecord(0, {}, config.to_dict(), 0.0, score=state.score, best_epoch=state.best_epoch)
    trial.epochs = Epochs(epochs)
    trial.worker = replace(worker(config), image_size=data.image_size)
    trial.end = End("completed", "budget")
    assert bundle.write(choices([trial], SEARCHED), search_data, lambda _: weights, folder, SPEC) is not None
    state.model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    logits, _ = predict(config, data.batches, data.scored_rows, state.kept.predictor)
    return Made(folder, search_data, trial, logits)
