"""What each part of a training recipe brings: the same trial with it and without it, over the same rows and seeds.

    python -m benchmarks.recipe_parts --data-dir DIR         (or BENCHMARK_CIFAR10=DIR)
    python -m benchmarks.recipe_parts --pictures FOLDER --weights FILE
    python -m benchmarks.recipe_parts --parts ema mixup --seeds 0 1 2

Each is one `python -m trainables` with one thread. From scratch: a ResNet-20 on CIFAR-10, 30 epochs of 5,000 training
rows, scored on 2,500 others: plain (SGD at 0.1, cosine, flips and padded crops), and with each of PARTS. With
`--pictures`: a pretrained net that is trained in full, head first, plain (AdamW, cosine, flips) and with each. Scores
are those of the last epoch, so that none is a best of 30. Figures: accuracy with the part minus accuracy without it, in
points, one a seed; both have the same rows, initial weights and order. `logit_adjustment` is for rows with rare
classes: there balanced accuracy is compared, over rows with a long tail. There is no target: what brings nothing stays
off by default.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, cifar10_files, two_cores

EVERY: dict[str, Any] = {"schedule": "cosine", "warmup": 0.1, "flip": "true", "selection": "last", "threads": 1}
PLAIN = "plain"
SCRATCH: dict[str, Any] = {
    "model": "resnet20",
    "lr": 0.1,
    "crop_padding": 4,
    "epoch": "rows",
    "train_fraction": 0.5,
    "max_epochs": 30,
}
"""The trial from scratch without any part, beside EVERY."""

PRETRAINED: dict[str, Any] = {
    "freeze": "false",
    "optimizer": "adamw",
    "lr": 0.01,
    "base_lr": 0.1,
    "head_epochs": 1,
    "batch_size": 32,
    "image_size": 96,
    "fit": "pad",
    "max_epochs": 10,
}
"""The trial of a pretrained net without any part, beside EVERY; small pictures, as it is trained on a CPU."""

TAIL: dict[str, Any] = {"long_tail": 0.1, "metric": "val_balanced_accuracy"}
"""Rows of which the last class has a tenth of the first's, judged by all classes alike."""

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
    "views": {"evaluation_views": "flip"},
    "long_tail": TAIL,
    "logit_adjustment": {**TAIL, "logit_adjustment": 1.0},
    "together": {
        "ema": 0.99, "trivial_augment": "true", "erasing": 0.25, "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1
    },
}  # fmt: skip
"""Name of a part → the fields that it sets, over those of PLAIN."""

WITHOUT = {"logit_adjustment": "long_tail"}
"""Name of a part → what it is held against, where that is not PLAIN."""

LIMIT_S = 4 * 3600.0  # of one trial: a busy machine may take an hour
SUBSET = 2.5
"""Rows of CIFAR-10 used per row trained on: a fifth of these is scored on, and half of the rest is trained on."""


@dataclass(frozen=True)
class Options:
    """Train with and without each part of a recipe."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files as Parquet. Default: that of the environment variable BENCHMARK_CIFAR10."""
    pictures: Path | None = None
    """Folder of class folders, in CIFAR-10's place."""
    weights: Path | None = None
    """File of a pretrained net of timm's for the pictures, named after it."""
    parts: tuple[str, ...] = tuple(PARTS)
    rows: int = 5_000
    """Rows of CIFAR-10 that are trained on; half as many others are scored on."""
    epochs: int | None = None
    """Epochs of a trial. Default: 30 from scratch, 10 of a pretrained net."""
    seeds: tuple[int, ...] = (0, 1, 2)
    slots: int = 1
    """Trials that run side by side."""
    lines: Path | None = None
    """File that keeps the figures of each trial; the same command goes on from it."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    trial = from_scratch(options) if options.pictures is None else pretrained(options)
    if trial is None:
        return 0
    two_cores()
    name = "recipe_parts" if options.pictures is None else "recipe_parts_pretrained"
    record = Record(name, asdict(options), lines=options.lines)
    if options.epochs is not None:
        trial = trial[0], {**trial[1], "max_epochs": options.epochs}
    with ThreadPoolExecutor(options.slots) as pool:
        runs = [
            pool.submit(record.once, {"part": part, "seed": seed}, partial(run, *trial, seed, part))
            for seed in options.seeds
            for part in dict.fromkeys((PLAIN, *(WITHOUT.get(part, PLAIN) for part in options.parts), *options.parts))
        ]
    for one in runs:
        one.result()
    return 0 if record.write(options.evidence, figures(options.parts, record.runs)) else 1


def from_scratch(options: Options) -> tuple[list[str], dict[str, Any]] | None:
    """Return data set and fields of the plain trial on CIFAR-10; None, with a message, without its files."""
    data_dir = cifar10_files(options.data_dir)
    files = ["cifar10", "--data-dir", str(data_dir), "--subset", str(round(SUBSET * options.rows))]
    return None if data_dir is None else (files, SCRATCH)


def pretrained(options: Options) -> tuple[list[str], dict[str, Any]]:
    """Return data set and fields of the plain trial on pictures.

    Raises:
        BenchmarkError: there are no weights.
    """
    if options.weights is None:
        raise BenchmarkError("--pictures needs --weights FILE, a pretrained net")
    net = {"model": f"timm:{options.weights.stem}", "weights": options.weights.absolute()}
    return [str(options.pictures)], {**PRETRAINED, **net}


def run(dataset: list[str], plain: dict[str, Any], seed: int, part: str) -> dict[str, Any]:
    """Run a trial with a part; return its last accuracy and its losses."""
    fields = PARTS.get(part, {})
    settings = (f"{name}={value}" for name, value in {**EVERY, **plain, **fields, "seed": seed}.items())
    answer = command.run(["-m", "trainables", *dataset, "--json", "--set", *settings], limit_s=LIMIT_S).answer
    last = answer["epochs"][-1]
    return {
        "fields": fields,
        "score": answer["score"],
        "train_loss": last["train_loss"],
        "val_loss": last["val_loss"],
    }


def figures(parts: tuple[str, ...], runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the gain of each part, seed by seed, and the accuracy of the plain trial."""
    scores = {(run["part"], run["seed"]): run["score"] for run in runs}
    seeds = sorted({seed for _, seed in scores})
    found = [Figure("accuracy of the plain trial", "", [scores[PLAIN, seed] for seed in seeds])]
    for part in parts:
        gains = [100 * (scores[part, seed] - scores[WITHOUT.get(part, PLAIN), seed]) for seed in seeds]
        found.append(Figure(f"accuracy, with minus without ({part})", "points", gains))
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
