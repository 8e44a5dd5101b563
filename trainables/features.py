"""Features: the outputs of a frozen base for every image, computed once for a model and a data set and kept on disk.

A base that does not learn, over images that are not augmented, gives the same features in every epoch and every trial.
The file's name is a digest of all that they depend on, so features of other weights or images are never mistaken for
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.batches import ORDERS, Batches, chunks, normalization, steps_an_epoch
from trainables.config import TrialConfig
from trainables.datasets.cache import writable_dir
from trainables.errors import look_up
from trainables.model_names import is_built_in
from trainables.models import heads, view_mean

VERSION = 3
BATCH = 256  # images at a time
PROBE_ROWS = 8  # images whose features show whether a model's code has changed

Predict = Callable[[TrialConfig, Batches, Tensor, nn.Module], tuple[Tensor, Tensor]]


def suffice(config: TrialConfig) -> bool:
    """Return whether a trial can be trained on features: its base is frozen, and its images never change."""
    return config.freeze and not config.augments and config.evaluation_crop == 1


class Features(Batches):
    """Features in place of images: batches are float32 [B, F], and int64 labels [B]."""

    def __init__(self, features: Tensor, batches: Batches) -> None:
        self.features, self.labels, self.of_images = features, batches.labels, batches

    def train(
        self, rows: Tensor, epoch_rows: int, config: TrialConfig, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch in the order in which `Batches.train` would."""
        draw = look_up(ORDERS, config.sampling, "sampling")
        order = draw(rows, epoch_rows, generator, self.labels).to(self.labels.device)
        for chunk in chunks(order, config.batch_size)[: steps_an_epoch(epoch_rows, config.batch_size)]:
            yield self.features.index_select(0, chunk), self.labels.index_select(0, chunk)

    def evaluate(self, rows: Tensor, config: TrialConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of `rows` (int64) in their order."""
        for chunk in chunks(rows.to(self.labels.device), config.batch_size):
            yield self.features.index_select(0, chunk), self.labels.index_select(0, chunk)


def of(config: TrialConfig, model: nn.Module, batches: Batches, predict: Predict) -> Features:
    """Return the features of all of `batches`' images under the base of `model`, from the cache if they are there.

    `predict` returns a network's outputs for rows, float32 [N, …], and their labels.
    """
    base = view_mean.evaluated(config, heads.with_head(model, nn.Identity())).eval()
    digest = _digest(config, base, batches)
    if not is_built_in(config.model):  # its code may change while its tensors stay; features of some rows show that
        digest.update(_compute(config, base, batches, predict, PROBE_ROWS).tobytes())
    path = writable_dir("features") / f"{digest.hexdigest()[:32]}.npy"
    with path.with_suffix(".lock").open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: two processes may compute the same
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            features = np.load(path)
        except (OSError, ValueError, EOFError):
            features = _compute(config, base, batches, predict, len(batches.labels))
            with contextlib.suppress(OSError):  # with a full disk there is no cache
                _store(path, features)
    return Features(torch.from_numpy(features).to(batches.labels.device), batches)


def _compute(
    config: TrialConfig, base: nn.Module, batches: Batches, predict: Predict, count: int
) -> NDArray[np.float32]:
    """Compute the features of the first `count` rows."""
    rows = torch.arange(min(count, len(batches.labels)))
    outputs, _ = predict(config.replace(batch_size=BATCH), batches, rows, base)
    features: NDArray[np.float32] = outputs.flatten(1).cpu().numpy()
    return features


def _store(path: Path, features: NDArray[np.float32]) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    try:
        np.save(temporary, features)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(config: TrialConfig, base: nn.Module, batches: Batches) -> hashlib._Hash:
    """Compute the SHA-256 over code version, settings, weights, normalization and images."""
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    relevant = ("model", "stem", "image_size", "fit", "evaluation_views", "precision", "memory_format")
    digest = hashlib.sha256(repr((VERSION, torch.__version__, [settings[name] for name in relevant])).encode())
    statistics = normalization(config.normalization, batches.mean, batches.std)
    digest.update(repr((statistics, batches.digest(), batches.labels.device.type)).encode())
    for name, tensor in base.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest
