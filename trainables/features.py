"""Features: the outputs of a frozen base for every image, computed once for a model and a data set and kept on disk.

A base that does not learn, over images that are not augmented, gives the same features in every epoch and every trial.
The name of the folder that keeps them is a digest of all that they depend on but the pictures, each of which has a
digest beside its features: features of other weights or images are never mistaken for them.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

import torch
from torch import Tensor, nn

from trainables import autos, memory
from trainables.batches import ORDERS, Batches, chunks, normalization, steps_an_epoch
from trainables.config import TrialConfig
from trainables.datasets.cache import writable_dir
from trainables.errors import look_up
from trainables.feature_store import FeatureStore
from trainables.model_names import is_timm, is_user_model
from trainables.models import heads, view_mean

VERSION = 4
BATCH = {"cpu": 8, "cuda": 256}  # views of `SIDE` pixels at a time: on a CPU what the processor's cache holds
SIDE, MOST = 224, 256  # smaller views are computed more at a time, up to so many
PROBE_ROWS = 8  # images whose features show whether the code of a user's model has changed
WAIT_S = 0.1  # between two looks whether another process has computed the last pieces

Result = TypeVar("Result")
Predict = Callable[[TrialConfig, Batches, Tensor, nn.Module], tuple[Tensor, Tensor]]


def suffice(config: TrialConfig) -> bool:
    """Return whether a trial can be trained on features: its base is frozen, and its images never change."""
    return config.freeze and not config.augments and config.evaluation_crop == 1


class Features(Batches):
    """Features in place of images: batches are float32 [B, F], and int64 labels [B].

    A GPU takes all features at once, unless they need more than the process's share of it (`memory.budget`).
    """

    def __init__(self, features: Tensor, batches: Batches) -> None:
        self.labels, self.of_images = batches.labels, batches
        device = self.labels.device
        fits = device.type == "cpu" or features.nbytes <= memory.budget(device)
        self.features = features.to(device) if fits else features

    def train(
        self, rows: Tensor, epoch_rows: int, config: TrialConfig, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch in the order in which `Batches.train` would."""
        order = look_up(ORDERS, config.sampling, "sampling")(rows, epoch_rows, generator, self.labels)
        for chunk in chunks(order, config.batch_size)[: steps_an_epoch(epoch_rows, config.batch_size)]:
            yield self._batch(chunk)

    def evaluate(self, rows: Tensor, config: TrialConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of `rows` (int64) in their order."""
        for chunk in chunks(rows, config.batch_size):
            yield self._batch(chunk)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.features.index_select(0, rows.to(self.features.device, non_blocking=True))
        device = self.labels.device
        return chosen.to(device), self.labels.index_select(0, rows.to(device, non_blocking=True))


@dataclass(frozen=True)
class Progress:
    """The number of rows whose features are known, whoever computed them."""

    rows: int
    of: int
    seconds: float  # that this process computed since the progress before; 0 if it waited for others


def of(config: TrialConfig, model: nn.Module, batches: Batches, predict: Predict) -> Features:
    """Return the features of all of `batches`' images under the base of `model`, from the cache if they are there.

    `predict` returns a network's outputs for rows, float32 [N, …], and their labels.
    """
    return finished(computed(config, model, batches, predict))


def finished(work: Generator[Progress, None, Result]) -> Result:
    """Return what the work returns once it is done."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result


def computed(
    config: TrialConfig, model: nn.Module, batches: Batches, predict: Predict
) -> Generator[Progress, None, Features]:
    """Return what `of` does, and yield the progress after each piece that is computed, here or by another process."""
    base, settings = base_of(config, model), as_computed(config, batches)
    folder = writable_dir("features") / _key(config, settings, base, batches)
    store = FeatureStore(folder, batches.digests())
    while missing := store.missing():
        alone = False
        for name in missing:
            started = time.perf_counter()
            with store.claimed(name) as free:
                if free:
                    rows = store.rows(name)
                    outputs, _ = predict(settings, batches, torch.from_numpy(rows), base)
                    store.add(name, rows, outputs.flatten(1).cpu().numpy())
                    alone = True
            yield Progress(int(store.known.sum()), len(store.known), (time.perf_counter() - started) if free else 0.0)
        if not alone:  # others compute what is left
            time.sleep(WAIT_S)
            store.refresh()
    if store.error is not None:
        warnings.warn(
            f"features cannot be kept in {folder} ({store.error}): other trials compute them again", stacklevel=2
        )
    return Features(torch.from_numpy(store.features), batches)


def base_of(config: TrialConfig, model: nn.Module) -> nn.Module:
    """Return what computes the features of a model's head, the mean over views, in evaluation mode."""
    return view_mean.evaluated(config, heads.with_head(model, nn.Identity())).eval()


def as_computed(config: TrialConfig, batches: Batches) -> TrialConfig:
    """Return the configuration with the batch size and memory format in which features are computed.

    On a CPU channels-last and small batches are 3 to 4 times as fast as what training takes, as what a layer leaves is
    still in the processor's cache when the next one needs it.
    """
    views = len(view_mean.views_of(config))
    pixels = math.prod(batches.sizes(config)[1])
    size = max(1, min(BATCH[batches.labels.device.type] * SIDE**2 // pixels, config.micro_batch or MOST, MOST) // views)
    return config.replace(batch_size=size, micro_batch=0, memory_format="channels_last")


def seconds_a_picture(config: TrialConfig, model: nn.Module, batches: Batches, predict: Predict) -> float:
    """Return the seconds that the features of a picture take on this device: the best of three small batches."""
    base, settings = base_of(config, model), as_computed(config, batches)
    rows = torch.arange(min(settings.batch_size, len(batches.labels)))
    seconds = []
    for _ in range(3):  # the first one also prepares
        started = time.perf_counter()
        predict(settings, batches, rows, base)[0].sum().item()
        seconds.append(time.perf_counter() - started)
    return min(seconds) / len(rows)


def _key(config: TrialConfig, settings: TrialConfig, base: nn.Module, batches: Batches) -> str:
    """Return 32 hex digits of the SHA-256 over all that features depend on but the pictures."""
    names = ("model", "stem", "fit", "interpolation", "evaluation_views", "precision", "memory_format")
    values = autos.resolved(settings, min(batches.sizes(config)[1])).to_dict()
    statistics = normalization(autos.normalization(config), batches.mean, batches.std)
    code = version("timm") if is_timm(config.model) else ""
    known = (VERSION, torch.__version__, code, [values[name] for name in names], batches.sizes(config), statistics)
    digest = hashlib.sha256(repr((known, batches.background, batches.labels.device.type)).encode())
    for name, tensor in base.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    if is_user_model(config.model):  # its code may change while its tensors stay
        digest.update(_probe(config, base, batches))
    return digest.hexdigest()[:32]


@torch.inference_mode()
def _probe(config: TrialConfig, base: nn.Module, batches: Batches) -> bytes:
    """Return the features of some noise, as bytes."""
    device = batches.labels.device
    noise = torch.randn(PROBE_ROWS, 3, *batches.sizes(config)[1], generator=torch.Generator().manual_seed(0))
    return bytes(base(noise.to(device)).float().cpu().numpy().tobytes())
