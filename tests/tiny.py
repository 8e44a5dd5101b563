"""A data set that a trial learns in milliseconds, and trials on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.epoch_metrics import OF_THE_RUN, EpochMetrics
from trainables.loop import TrialData, TrialState, train
from trainables.splits import SearchData

CPU = torch.device("cpu")
CLASSES, VALIDATION, POOL, TEST = ("a", "b", "c"), 24, 60, 36

torch.set_num_threads(1)


def search_data(opened: bool = False) -> SearchData:
    """Return grey 8×8 noise with a bright stripe whose position shows the class; `opened` adds test rows."""
    random = np.random.default_rng(0)
    labels = np.arange(VALIDATION + POOL + (TEST if opened else 0)) % len(CLASSES)
    images = random.integers(0, 120, (len(labels), 8, 8, 1), dtype=np.uint8)
    images[np.arange(len(labels)), 1 + 2 * labels] += 100
    images.flags.writeable = False  # as Ray's object store hands them out
    validation, pool, test = np.split(np.arange(len(labels)), [VALIDATION, VALIDATION + POOL])
    mean, std = np.array([0.3], np.float32), np.array([0.2], np.float32)
    return SearchData(images, labels, CLASSES, validation, pool, mean, std, fingerprint="0", test=test)


def config(**fields: Any) -> TrialConfig:
    """Return a configuration of four epochs of four steps, without autos."""
    small: dict[str, Any] = {
        "model": "resnet8", "batch_size": 16, "max_epochs": 4, "lr": 0.05,
        "precision": "float32", "memory_format": "contiguous", "threads": 1,
    }  # fmt: skip
    return TrialConfig(**small | fields)


def select(config: TrialConfig, device: torch.device = CPU) -> TrialData:
    return select_from(config, search_data(), device)


def select_from(config: TrialConfig, data: SearchData, device: torch.device = CPU) -> TrialData:
    return TrialData.select(config, data, Batches.of(data, device))


def start(config: TrialConfig, device: torch.device = CPU) -> tuple[TrialData, TrialState]:
    data = select(config, device)
    return data, TrialState.start(config, data, device)


def epochs(config: TrialConfig) -> Iterator[EpochMetrics]:
    data, state = start(config)
    return train(data, state)


def lasting(metrics: EpochMetrics | dict[str, Any]) -> dict[str, Any]:
    """Return the metrics on which two runs of one trial must agree."""
    values = metrics if isinstance(metrics, dict) else metrics.to_dict()
    return {name: value for name, value in values.items() if name not in OF_THE_RUN}
