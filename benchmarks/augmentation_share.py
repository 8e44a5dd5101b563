"""Augmentation's share of a training step: the time to make a batch, against that and the optimizer's step together.

    python -m benchmarks.augmentation_share

A ResNet-18 at 224 pixels, batches of 128, on two threads, over pictures that are stored with a shorter side of 320
pixels, as those of one's own are (noise, scaled up: the content does not matter for the time, sizes do). WAYS are what
is switched on. Target: with flips, random resized crops, TrivialAugment and random erasing, or with flips, shifts and
zooms in place of the crops, at most 15 % of a step, views (cutting and scaling the pictures) and all. Without any
augmentation the views must be made, too; so it is measured beside them. Ways take turns; the median of the steps
counts, as a value for each round. The step computes in the numbers that suit this machine best, as a trial's would.

For thumbnails (32 pixels, stored so) the milliseconds of a batch are given, beside those of a ResNet-20's step.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, two_cores
from trainables import memory
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.learner import Fold, Learner
from trainables.loop import TrialData, optimizer_step
from trainables.precision import resolve

BATCH, THREADS, CLASSES = 128, 2, 10
SHARE = 0.15  # of a step, at most
OF_TODAY: dict[str, Any] = {"flip": True, "trivial_augment": True, "erasing": 0.25}
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "crops and all": {**OF_TODAY, "resized_crop": 0.35},
    "shifts and all": {**OF_TODAY, "shift": 0.1, "scale": 0.2},
    "resized crops alone": {"resized_crop": 0.35},
    "TrivialAugment alone": {"trivial_augment": True},
    "erasing alone": {"erasing": 0.25},
    "mixup alone": {"mixup": 0.2},
    "CutMix alone": {"cutmix": 1.0},
}
"""What is switched on → its fields; the first ones with flips have a target."""
JUDGED = ("crops and all", "shifts and all")
KINDS = {"pictures": ("resnet18", 224, (320, 400)), "thumbnails": ("resnet20", 32, (32, 32))}
"""Kind of images → the model, the pixels of its inputs' sides, and height and width as stored."""


@dataclass(frozen=True)
class Options:
    """Measure the time to make batches, and that of a step."""

    rounds: int = 5
    """Rounds, each with every way and a step of each model."""
    batches: int = 3
    """Batches of each way in a round."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    memory.keep_freed()
    torch.set_num_threads(THREADS)
    record = Record("augmentation_share", asdict(options))
    figures: list[Figure] = []
    for kind in KINDS:
        runs = []
        for run in measured(kind, options):
            runs.append({"kind": kind, **run})
            record.add(runs[-1])
        figures += figures_of(kind, runs)
    return 0 if record.write(options.evidence, figures) else 1


def measured(kind: str, options: Options) -> Iterator[dict[str, Any]]:
    """Yield the milliseconds of a round: of a step, and of a batch under each way."""
    model, side, stored = KINDS[kind]
    images = np.random.default_rng(0).integers(0, 256, (2 * BATCH, *stored, 3), dtype=np.uint8)
    labels = np.arange(len(images)) % CLASSES
    cpu, rows = torch.device("cpu"), torch.arange(len(images))
    batches = Batches(images, labels, [0.5] * 3, [0.25] * 3, cpu, classes=CLASSES)
    config = TrialConfig(model=model, image_size=side, batch_size=BATCH, threads=THREADS)
    data = TrialData(batches, (Fold(rows, rows),), BATCH, CLASSES, side)
    config = resolve(config, data)
    learner = Learner.start(config, CLASSES, side, BATCH, cpu)
    learner.schedule.set_rate(0)
    learner.model.train()

    def make(way: str) -> tuple[torch.Tensor, torch.Tensor]:
        return next(batches.train(rows, BATCH, config.replace(**WAYS[way]), torch.Generator().manual_seed(next(seeds))))

    seeds = itertools.count()
    for number in range(options.rounds + 1):
        step = timed(partial(optimizer_step, learner, *make("nothing")), 1)
        made = {way: timed(partial(make, way), options.batches) for way in WAYS}
        if number:  # the first round prepares
            yield {"round": number, "precision": config.precision, "layout": config.memory_format, "step": step, **made}


def timed(call: Callable[[], object], times: int) -> float:
    """Return the median milliseconds of some calls."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 3)


def figures_of(kind: str, runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the shares of a step that making its batch takes, for pictures; else the milliseconds."""
    if kind == "thumbnails":
        return [Figure(f"{kind}: {way}", "ms", [run[way] for run in runs]) for way in ("step", *WAYS)]
    target = Target(SHARE)
    return [
        Figure(
            f"{kind}: share of a step, {way}",
            "",
            [run[way] / (run[way] + run["step"]) for run in runs],
            target if way in JUDGED else None,
        )
        for way in WAYS
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
