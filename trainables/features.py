"""What a frozen base makes of every image: computed once for a model and a data set, and kept on disk.

A base that does not learn, over images that are not augmented, gives the same features in every epoch and every trial.
The file's name is a digest of all that they depend on, so features of other weights or rows are never taken for them.
"""

from __future__ import annotations

import contextlib
import copy
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

from trainables.batches import Batches, balanced_order, chunks, epoch_order, normalization, steps_an_epoch
from trainables.config import TrialConfig
from trainables.datasets.cache import writable_dir
from trainables.datasets.stored_images import portions
from trainables.model_names import is_built_in
from trainables.models import heads

VERSION = 2
BATCH = 256  # images at a time
PROBE_ROWS = 8  # images that tell whether the code of a model is still the same

Predict = Callable[[TrialConfig, Batches, Tensor, nn.Module], tuple[Tensor, Tensor]]


def suffice(config: TrialConfig) -> bool:
    """Whether a trial can be trained on features: a frozen base, and every image always the same."""
    return config.freeze and not config.augments and config.evaluation_crop == 1


class Features(Batches):
    """Features in place of images: batches are float32 [B, F], and int64 labels [B]."""

    def __init__(self, features: Tensor, batches: Batches) -> None:
        self.images, self.labels = features, batches.labels

    def train(
        self, rows: Tensor, epoch_rows: int, config: TrialConfig, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As of `Batches`, in the same order."""
        draw = balanced_order if config.sampling == "balanced" else epoch_order
        order = draw(rows, epoch_rows, generator, self.labels).to(self.labels.device)
        for chunk in chunks(order, config.batch_size)[: steps_an_epoch(epoch_rows, config.batch_size)]:
            torch.rand(10, len(chunk), generator=generator)  # what augmentation would draw
            yield self.images.index_select(0, chunk), self.labels.index_select(0, chunk)

    def evaluate(self, rows: Tensor, config: TrialConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """`rows` (int64) in their order."""
        for chunk in chunks(rows.to(self.labels.device), config.batch_size):
            yield self.images.index_select(0, chunk), self.labels.index_select(0, chunk)


def of(config: TrialConfig, model: nn.Module, batches: Batches, predict: Predict) -> Features:
    """The features of all of `batches`' images under the base of `model`, from the cache if they are there.

    `predict` gives what a network makes of rows, float32 [N, …], and their labels.
    """
    base = _base(model)
    digest = _digest(config, base, batches)
    if not is_built_in(config.model):  # its code may change, and its tensors stay: what it makes of some rows tells
        digest.update(_compute(config, base, batches, predict, PROBE_ROWS).tobytes())
    path = writable_dir("features") / f"{digest.hexdigest()[:32]}.npy"
    with path.with_suffix(".lock").open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: two processes may compute the same
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            found = np.load(path)
        except (OSError, ValueError, EOFError):
            found = _compute(config, base, batches, predict, len(batches.labels))
            with contextlib.suppress(OSError):  # a full disk costs the cache
                _store(path, found)
    return Features(torch.from_numpy(found).to(batches.labels.device), batches)


def _base(model: nn.Module) -> nn.Module:
    """The model without its head, in evaluation mode; its tensors are the model's own."""
    head = heads.head_of(model)
    name = next(name for name, module in model.named_modules() if module is head)
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    base = copy.deepcopy(model, shared)
    base.set_submodule(name, nn.Identity())
    return base.eval()


def _compute(
    config: TrialConfig, base: nn.Module, batches: Batches, predict: Predict, count: int
) -> NDArray[np.float32]:
    """Of the first `count` rows."""
    rows = torch.arange(min(count, len(batches.labels)))
    made, _ = predict(config.replace(batch_size=BATCH), batches, rows, base)
    found: NDArray[np.float32] = made.flatten(1).cpu().numpy()
    return found


def _store(path: Path, features: NDArray[np.float32]) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    try:
        np.save(temporary, features)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(config: TrialConfig, base: nn.Module, batches: Batches) -> hashlib._Hash:
    """SHA-256 over code version, settings, weights, normalisation and images."""
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    relevant = ("model", "stem", "image_size", "precision", "memory_format")
    whole = hashlib.sha256(repr((VERSION, torch.__version__, [settings[name] for name in relevant])).encode())
    statistics = normalization(config.normalization, batches.mean, batches.std)
    whole.update(repr((statistics, tuple(batches.images.shape), batches.labels.device.type)).encode())
    for name, tensor in base.state_dict().items():
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().numpy().tobytes())
    for portion in portions(batches.images.shape):
        whole.update(batches.images[portion].cpu().contiguous().numpy().data)
    return whole
