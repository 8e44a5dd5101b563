"""The time that cached features save: the cactus recipe's ResNet-50, 500 epochs on them against the same on images.

    python -m benchmarks.cactus_features --data-dir DIR         (or BENCHMARK_CIFAR10=DIR)

The arm `resnet50` of the recipe `cactus-features` as it is published: a frozen ResNet-50, a head 2048 → 128 → 2, Adam,
batches of 64, a split of 70:15:15, inverse class weights; in float32, with random weights unless `--weights` says
otherwise, two threads, through `trainables.loop`: no sweep, no Ray.

The data are no cacti. CIFAR-10's animals and things stand for pictures with and without one, 13,136 and 4,364 JPEG
files of 32 × 32 pixels with a `train.csv` as Kaggle has them, read by the project's own reader. Accuracies on
them say nothing about the paper's.

With features: all epochs, from the built model to the last epoch's end, so that computing the features, which are not
in the cache, counts. Without: the same loop with `features.suffice` answering no; a few epochs, scaled to as many as
with features. Evaluation on the validation part, after every epoch, counts on both sides. Target: ≤ 1/20 of the time.

Same metrics: both see the same rows in the same order, so losses and metrics of the epochs that both have must agree
but for rounding; a metric may differ by a picture or two on the edge.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro

from benchmarks.record import EVIDENCE, Figure, Record, Target, cifar10_files, say, two_cores
from search_spaces import recipes
from tests import lookalikes
from trainables import datasets, features, precision
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.loop import TrialData, TrialState, final_metrics, train
from trainables.splits import SearchData, search_data

CPU = torch.device("cpu")
THREADS = 2
METRICS = ("train_accuracy", "val_accuracy", "val_f1", "val_precision", "val_recall", "val_roc_auc")
LOSSES = ("train_loss", "val_loss")


@dataclass(frozen=True)
class Options:
    """Train on a frozen ResNet-50 with and without cached features."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    rows: int = 17_500
    """Rows of the data set."""
    epochs: int = 500
    """Epochs with features."""
    uncached_epochs: int = 3
    """Epochs without features."""
    weights: str = "none"
    """Initial weights: none, imagenet, or a .safetensors file."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    if not 0 < options.uncached_epochs <= options.epochs:
        sys.exit("--uncached-epochs: 1 to --epochs, so that there are epochs of both to compare")
    two_cores()
    torch.set_num_threads(THREADS)
    record = Record("cactus_features", asdict(options))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        data = cacti(Path(folder), data_dir, options.rows)
        record.notes.append(f"pictures: {lookalikes.subject()}'s animals and things in the layout of the cactus data")
        config = published(options)
        with mock.patch.object(features, "suffice", return_value=False):
            # The layout that is fastest on images, for both: without features there is more to be had from it.
            config = precision.resolve(config, selected(config, data))
            uncached = run(config, data, options.uncached_epochs)
        cached = run(config, data, options.epochs)
    for side in (uncached, cached):
        record.add({**side, "metrics": side["metrics"][: options.uncached_epochs]})
    return 0 if record.write(options.evidence, figures(cached, uncached)) else 1


def cacti(folder: Path, data_dir: Path, rows: int) -> SearchData:
    """Write and read `rows` pictures; nothing that is computed from them goes to the user's cache."""
    os.environ[lookalikes.CIFAR10_VARIABLE] = str(data_dir)
    lookalikes.cactus(folder / "cactus", rows)
    os.environ["SWEEP_ORCHESTRATOR_CACHE"] = str(folder / "cache")
    dataset = datasets.load("cactus", datasets.Reading(folder / "cactus"))
    say(f"{len(dataset.labels) + dataset.test_rows} pictures of {dataset.images.shape[1]} pixels")
    return search_data(dataset, opened=True)


def published(options: Options) -> TrialConfig:
    arm = recipes.load("cactus-features").arms("cactus")["resnet50"]
    return arm.config.replace(weights=options.weights, precision="float32", max_epochs=options.epochs, threads=THREADS)


def selected(config: TrialConfig, data: SearchData) -> TrialData:
    return TrialData.select(config, data, Batches.of(data, CPU))


def run(config: TrialConfig, data: SearchData, epochs: int) -> dict[str, Any]:
    """Train the first `epochs` of a trial; return seconds from the built model to the end of each, and metrics."""
    trial = selected(config, data)
    state = TrialState.start(config, trial, CPU)
    found, ends = [], [0.0]
    started = time.perf_counter()
    for metrics in itertools.islice(train(trial, state), epochs):
        found.append({name: getattr(metrics, name) for name in (*LOSSES, *METRICS)})
        ends.append(time.perf_counter() - started)
        if len(found) % 50 == 0 or not state.kept.on_features:
            say(f"epoch {len(found)}: {ends[-1]:.1f} s, loss {metrics.train_loss:.4f}, {metrics.val_accuracy:.4f}")
    described = {
        "features": state.kept.on_features,
        "precision": config.precision,
        "memory_format": config.memory_format,
        "train_rows": len(trial.train_rows),
        "scored_rows": len(trial.scored_rows),
        "epochs": len(found),
        "seconds": round(ends[-1], 3),
        "epoch_s": [round(end - start, 4) for start, end in itertools.pairwise(ends)],
        "metrics": found,
        "load_average": os.getloadavg()[0],
    }
    return described | ({"end": final_metrics(trial, state)} if state.kept.on_features else {})


def figures(cached: dict[str, Any], uncached: dict[str, Any]) -> list[Figure]:
    """Return figures with a value for each epoch without features, as if all epochs had taken as long."""
    epochs = cached["epochs"]
    scaled = [seconds * epochs for seconds in uncached["epoch_s"]]
    both = list(zip(cached["metrics"], uncached["metrics"], strict=False))
    losses = [abs(a[name] / b[name] - 1) for a, b in both for name in LOSSES]
    metrics = [abs((a[name] or 0) - (b[name] or 0)) for a, b in both for name in METRICS]  # None is undefined
    ratios = [cached["seconds"] / seconds for seconds in scaled]
    return [
        Figure(f"time of {epochs} epochs, with features / without", "", ratios, Target(0.05)),
        Figure(f"{epochs} epochs with features", "s", [cached["seconds"]]),
        Figure(f"{epochs} epochs without, from {len(scaled)}", "s", scaled),
        Figure("difference of losses, relative", "", losses, Target(1e-3, statistic="max")),
        Figure("difference of metrics", "", metrics, Target(5e-3, statistic="max")),
    ]


if __name__ == "__main__":
    sys.exit(main())
