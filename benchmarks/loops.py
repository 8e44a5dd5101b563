"""The training of ResNet-18 as this project has it and as most people write it, in blocks of equal numbers of steps."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.splits import SearchData


def pictures(rows: int, size: int, channels: int = 3, classes: int = 10) -> SearchData:
    """Return noise of the size of a data set's images, all of it to train on but a tenth: speed needs no more."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, size, size, channels), dtype=np.uint8)
    labels = np.arange(rows) % classes
    scored, pool = np.split(np.arange(rows), [rows // 10])
    half = np.array([0.5] * channels, np.float32)
    return SearchData(images, labels, tuple(map(str, range(classes))), scored, pool, half, half, fingerprint="noise")


def our_epochs(data: SearchData, config: TrialConfig, device: str, steps: int) -> Iterator[None]:
    """Train `steps` steps at a time through `trainables.loop`."""
    import torch

    from trainables import loop, precision
    from trainables.batches import Batches
    from trainables.loop import TrialData, TrialState

    place = torch.device(device)
    precision.prepare(place)
    trial = TrialData.select(config, data, Batches.of(data, place))
    trial = dataclasses.replace(trial, epoch_rows=steps * config.batch_size)
    state = TrialState.start(precision.resolve(config, trial), trial, place)
    while True:
        state.epoch += 1
        loop.train_epoch(trial, state)  # its result waits for the device
        yield


class TransformedPictures:
    """Rows of a data set whose pictures are opened, cropped, flipped and scaled one by one, as tutorials have it."""

    def __init__(self, data: SearchData, rows: NDArray[np.int64], padding: int) -> None:
        from torchvision import transforms

        self._images, self._labels = data.images[rows], data.labels[rows]
        self._transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(self._images.shape[1], padding),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean.tolist(), data.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._transform(self._images[index]), int(self._labels[index])


def loader_epochs(data: SearchData, config: TrialConfig, device: str, steps: int) -> Iterator[None]:
    """Train `steps` steps at a time as most people write it."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.models import resnet18

    rows = np.arange(steps * config.batch_size) % len(data.labels)
    place, cuda = torch.device(device), device == "cuda"
    model = resnet18(num_classes=len(data.classes))
    model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    model = model.to(place, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, 0.9, nesterov=True, fused=True)
    workers = len(os.sched_getaffinity(0)) if cuda else 0
    dataset: Any = TransformedPictures(data, rows, config.crop_padding)
    loader: Any = DataLoader(
        dataset, config.batch_size, shuffle=True, num_workers=workers,
        pin_memory=cuda, drop_last=True, persistent_workers=workers > 0,
    )  # fmt: skip
    while True:
        total = torch.zeros((), device=place)
        for batch, targets in loader:
            seen = batch.to(place, non_blocking=True, memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(seen), targets.to(place, non_blocking=True))
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
        float(total)
        yield
