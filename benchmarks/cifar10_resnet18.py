"""The training loop on all of CIFAR-10: the accuracy of one trial.

    python -m benchmarks.cifar10_resnet18 --data-dir DIR         (or BENCHMARK_CIFAR10=DIR)

torchvision's ResNet-18 with its ImageNet stem, at 32 px, two threads, through `trainables.loop`: no sweep, no Ray.
Its speed beside that of a bare loop is in `benchmarks.bare_loop`. 5 epochs over all 50,000 official training rows (no
validation set is held out), one-cycle AdamW, label smoothing 0.1, flips and padded crops; seeds 0, 1, 2. The weights
after the last epoch, whatever they are, are scored once on the 10,000 official test rows. This is the one place
outside a confirmation that opens the test set (`trainables.datasets.open_test`), at each seed's end; nothing is
chosen by it. Target: mean accuracy ≥ 0.757.
Settings were chosen on a validation set, 5 epochs over 20,000 rows.
Crops padded by 4: SGD with Nesterov momentum, batch 64,
reached 0.623 at 0.1 and 0.653 at 0.05; AdamW, batch 128, 0.655 at 0.002 and 0.664 at 0.005. Crops padded by 2, as
cifar10-airbench has them: AdamW, batch 128, 0.684 at 0.005 and 0.677 at 0.01; batch 64, 0.697 at 0.005.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.record import EVIDENCE, Figure, Record, Target, cifar10_files, say, two_cores
from trainables import datasets, evaluation, loop, precision
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.loop import TrialData, TrialState
from trainables.splits import SearchData

THREADS = 2
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    """Train on all of CIFAR-10."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 5
    batch_size: int = 64
    lr: float = 0.005
    weight_decay: float = 0.05
    warmup: float = 0.2
    crop_padding: int = 2
    label_smoothing: float = 0.1
    train_rows: int | None = None
    """A smaller number of rows, for a smoke test. Default: all."""
    test_rows: int | None = None
    """A smaller number of rows, for a smoke test. Default: all."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    two_cores()
    torch.set_num_threads(THREADS)
    record = Record("cifar10_resnet18", asdict(options))
    dataset = datasets.load("cifar10", datasets.Reading(data_dir))
    data = all_rows(dataset, options.train_rows)
    config = base_config(options)
    batches = Batches.of(data, CPU)
    config = precision.resolve(config, TrialData.select(config, data, batches))
    record.add({"kind": "form", "precision": config.precision, "memory_format": config.memory_format})
    for seed in options.seeds:
        record.add(accuracy(config.replace(seed=seed), data, dataset, options.test_rows))
    trained = [run for run in record.runs if run["kind"] == "accuracy"]
    scores = [run["test_accuracy"] for run in trained]
    figures = [
        Figure("test accuracy", "", scores, Target(0.757, at_most=False, statistic="mean")),
        Figure("seconds of training a seed", "s", [run["train_s"] for run in trained]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def base_config(options: Options) -> TrialConfig:
    return TrialConfig(
        model="resnet18",
        stem="imagenet",
        optimizer="adamw",
        momentum=0.9,
        schedule="one_cycle",
        flip=True,
        crop_padding=options.crop_padding,
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup=options.warmup,
        label_smoothing=options.label_smoothing,
        batch_size=options.batch_size,
        max_epochs=options.epochs,
        threads=THREADS,
    )


def all_rows(dataset: datasets.Dataset, count: int | None) -> SearchData:
    """Return all official training rows for training and none for validation, in memory as in a sweep's workers."""
    images, labels = np.array(dataset.images[:count]), np.array(dataset.labels[:count])
    mean, std = images.mean((0, 1, 2), dtype=np.float64) / 255, images.std((0, 1, 2), dtype=np.float64) / 255
    rows = np.arange(len(labels))
    return SearchData(
        images, labels, dataset.classes, rows[:0], rows, mean.astype(np.float32), std.astype(np.float32), "all rows"
    )


def accuracy(config: TrialConfig, data: SearchData, dataset: datasets.Dataset, test_rows: int | None) -> dict[str, Any]:
    """Train one seed to the end, then open the test set."""
    batches = Batches.of(data, CPU)
    trial = TrialData.select(config, data, batches)
    state = TrialState.start(config, trial, CPU)
    started = time.perf_counter()
    losses = []
    for epoch in range(1, config.max_epochs + 1):
        state.epoch = epoch
        loss, train_accuracy, *_ = loop.train_epoch(trial, state)
        losses.append(round(loss, 4))
        say(f"seed {config.seed} epoch {epoch}: train loss {loss:.4f}, accuracy {train_accuracy:.4f}")
    train_s = time.perf_counter() - started
    images, labels = datasets.open_test(dataset)
    images, labels = np.array(images[:test_rows]), labels[:test_rows]
    test = Batches(images, labels, data.mean, data.std, CPU)
    outputs = evaluation.predict(config, test, torch.arange(len(labels)), state.model)
    found = evaluation.measured(*outputs, positive=1, temperature=None, seconds=0.0)
    return {
        "kind": "accuracy",
        "seed": config.seed,
        "test_accuracy": found["accuracy"],
        "test_loss": found["loss"],
        "test_rows": len(labels),
        "train_rows": len(trial.train_rows),
        "train_losses": losses,
        "train_s": round(train_s, 2),
        "images_per_s": round(len(trial.train_rows) * config.max_epochs / train_s, 1),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
