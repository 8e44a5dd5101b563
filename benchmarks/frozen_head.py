"""The frozen head as trials train it, against scikit-learn's logistic regression on the same features and rows.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python -m benchmarks.frozen_head --pictures stamps/usr/share/tuxpaint/stamps --weights lite0.safetensors

Features are those of timm's EfficientNet-Lite0 at 224 pixels, whole pictures padded to squares, the mean over the
picture and its mirror image. For each of 8 seeds the rows that are not sealed are split anew, a fifth of them to be
scored on. The head is trained for 40 epochs by AdamW under a cosine, with one fixed learning rate, and its last epoch
counts; logistic regression has C = 1. Target: the mean difference of accuracy is not below 0, and the head of a split
takes less than 3 s.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from trainables import datasets
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.features import Features
from trainables.loop import TrialData, TrialState, prepared, train
from trainables.splits import search_data


@dataclass(frozen=True)
class Options:
    """Compare the frozen head with logistic regression on the stamps of Tux Paint."""

    pictures: Path
    """Folder of the class folders: share/tuxpaint/stamps of the unpacked Debian package."""
    weights: Path
    """The net's weights, as safetensors with timm's names."""
    splits: int = 8
    """Splits of the rows."""
    lr: float = 0.02
    """Learning rate of the head."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    torch.set_num_threads(1)
    record = Record("frozen_head", {"splits": options.splits, "lr": options.lr})
    for seed in range(options.splits):
        record.add(measure(options, seed))
    figures = [
        Figure("accuracy of the head", "", [run["head"] for run in record.runs]),
        Figure("accuracy of logistic regression", "", [run["logistic"] for run in record.runs]),
        Figure(
            "head − logistic regression",
            "",
            [run["head"] - run["logistic"] for run in record.runs],
            Target(0.0, at_most=False, statistic="mean"),
        ),
        Figure("training a head", "s", [run["head_s"] for run in record.runs], Target(3.0)),
        Figure("fitting logistic regression", "s", [run["logistic_s"] for run in record.runs]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def config_of(options: Options, seed: int) -> TrialConfig:
    """Return the configuration of the trial."""
    return TrialConfig(
        model="timm:tf_efficientnet_lite0",
        weights=str(options.weights.absolute()),
        freeze=True,
        image_size=224,
        normalization="half",
        fit="pad",
        evaluation_views="flip",
        optimizer="adamw",
        lr=options.lr,
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.2,
        batch_size=64,
        max_epochs=40,
        selection="last",
        precision="float32",
        memory_format="channels_last",
        threads=1,
        seed=seed,
    )


def measure(options: Options, seed: int) -> dict[str, Any]:
    """Train both on one split, and return their accuracies and seconds."""
    from sklearn.linear_model import LogisticRegression

    config, device = config_of(options, seed), torch.device("cpu")
    dataset = datasets.load(str(options.pictures), datasets.Reading(None))
    data = search_data(dataset, seed=seed)
    trial = TrialData.select(config, data, Batches.of(data, device))
    state = TrialState.start(config, trial, device)
    trial = prepared(trial, state)
    assert isinstance(trial.batches, Features)
    started = time.perf_counter()
    for _ in train(trial, state):
        pass
    trained = time.perf_counter()
    features, labels = trial.batches.features.numpy(), data.labels
    model = LogisticRegression(C=1.0, max_iter=2000).fit(features[data.pool], labels[data.pool])
    fitted = time.perf_counter()
    return {
        "seed": seed,
        "train_rows": len(data.pool),
        "scored_rows": len(data.validation),
        "head": state.score,
        "logistic": float(model.score(features[data.validation], labels[data.validation])),
        "head_s": round(trained - started, 3),
        "logistic_s": round(fitted - trained, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
