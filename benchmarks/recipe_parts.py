"""What each part of a training recipe brings: the same trial with it and without it, over the same rows and seeds.

    python -m benchmarks.recipe_parts --data-dir DIR         (or BENCHMARK_CIFAR10=DIR)
    python -m benchmarks.recipe_parts --parts ema mixup --seeds 0 1 2

`python -m trainables` on CIFAR-10, a ResNet-20 for 30 epochs of 5,000 training rows, scored on 2,500 others, one
thread: plain (SGD at 0.1, cosine, flips and padded crops), and with each of PARTS. Scores are those of the last epoch,
so that none is a best of 30. Figures: accuracy with the part minus accuracy without it, in points, one a seed; both
have the same rows, initial weights and order. There is no target: what brings nothing stays off by default.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, cifar10_files, two_cores

PLAIN: dict[str, Any] = {
    "model": "resnet20",
    "lr": 0.1,
    "schedule": "cosine",
    "warmup": 0.1,
    "flip": "true",
    "crop_padding": 4,
    "selection": "last",
    "epoch": "rows",
    "threads": 1,
}
"""The trial without any part."""

PARTS: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.99},
    "ema_slow": {"ema": 0.999},
    "stochastic_depth": {"stochastic_depth": 0.1},
    "trivial_augment": {"trivial_augment": "true"},
    "erasing": {"erasing": 0.25},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "mixup_cutmix": {"mixup": 0.2, "cutmix": 1.0},
    "label_smoothing": {"label_smoothing": 0.1},
    "resized_crop": {"resized_crop": 0.35, "crop_padding": 0},
    "together": {
        "ema": 0.99, "trivial_augment": "true", "erasing": 0.25, "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1
    },
}  # fmt: skip
"""Name of a part → the fields that it sets, over those of PLAIN."""

LIMIT_S = 4 * 3600.0  # of one trial: a busy machine may take an hour
TRAIN_FRACTION = 0.5
SUBSET = 2.5
"""Rows used per row trained on: a fifth of these is scored on, and half of the rest is trained on."""


@dataclass(frozen=True)
class Options:
    """Train with and without each part of a recipe."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files as Parquet. Default: that of the environment variable BENCHMARK_CIFAR10."""
    parts: tuple[str, ...] = tuple(PARTS)
    rows: int = 5_000
    """Rows that are trained on; half as many others are scored on."""
    epochs: int = 30
    seeds: tuple[int, ...] = (0, 1, 2)
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    two_cores()
    record = Record("recipe_parts", asdict(options))
    gains: dict[str, list[float]] = {part: [] for part in options.parts}
    costs: dict[str, list[float]] = {part: [] for part in options.parts}
    for seed in options.seeds:
        plain = run(options, data_dir, seed, {})
        record.add({"part": "plain", "seed": seed, **plain})
        for part in options.parts:
            found = run(options, data_dir, seed, PARTS[part])
            record.add({"part": part, "seed": seed, "fields": PARTS[part], **found})
            gains[part].append(100 * (found["score"] - plain["score"]))
            costs[part].append(found["train_s"] / plain["train_s"])
    figures = [Figure(f"accuracy, with minus without ({part})", "points", gains[part]) for part in options.parts]
    figures += [Figure(f"training time, with / without ({part})", "", costs[part]) for part in options.parts]
    return 0 if record.write(options.evidence, figures) else 1


def run(options: Options, data_dir: Path, seed: int, part: dict[str, Any]) -> dict[str, Any]:
    """Run a trial; return its last accuracy, its losses, and the seconds of training."""
    fields = {**PLAIN, "train_fraction": TRAIN_FRACTION, "max_epochs": options.epochs, "seed": seed, **part}
    subset = str(round(SUBSET * options.rows))
    arguments = ["-m", "trainables", "cifar10", "--data-dir", str(data_dir), "--subset", subset, "--json", "--set"]
    settings = (f"{name}={value}" for name, value in fields.items())
    answer = command.run([*arguments, *settings], limit_s=LIMIT_S).answer
    last = answer["epochs"][-1]
    seconds = sum(epoch["train_s"] for epoch in answer["epochs"])
    return {
        "score": answer["score"],
        "train_loss": last["train_loss"],
        "val_loss": last["val_loss"],
        "train_s": seconds,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
