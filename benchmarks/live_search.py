"""Compare live searches of a given time: this project's sweep, and stock Ray Tune with OptunaSearch and ASHA.

    python -m benchmarks.live_search --data-dir DIR              (or BENCHMARK_CIFAR10=DIR; without either: digits only)

Each side gets the same seconds from its command on, start included: the baseline by Tune's `time_budget_s`, ours by
`--time-budget`, within which it also confirms. Rows, ranges, net, slots and threads are those of `against_plain_ray`;
which side runs first alternates. What each side says is best is then trained with three further seeds, by the same
code on the same rows, and scored on the data set's test part: the figure is the difference of the means.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import command
from benchmarks.against_plain_ray import (
    RANGES,
    SIDES,
    WORKLOADS,
    Workload,
    arguments_of_ours,
    chosen,
    fixed,
    hand_over,
    run_theirs,
)
from benchmarks.record import EVIDENCE, Figure, Record, Target, say, two_cores

SEEDS = (101, 102, 103)  # of the runs that confirm
TIMES = {"digits": 80.0, "cifar10": 120.0}


@dataclass(frozen=True)
class Options:
    """Compare live searches that take the same time."""

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    """Workloads to run: digits, cifar10."""
    sweeps: int = 5
    """Sweeps of each side."""
    seconds: float | None = None
    """Of each sweep; default: 80 on digits, 120 on CIFAR-10."""
    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    held = [compare(options, *one) for one in chosen(options.workloads, options.data_dir)]
    return 0 if all(held) else 1


def compare(options: Options, name: str, data_dir: Path | None) -> bool:
    """Run all sweeps of one workload, and return whether the targets hold."""
    work, seconds = WORKLOADS[name], options.seconds or TIMES[name]
    about = {"sweeps": options.sweeps, "seconds": seconds, "workload": asdict(work)}
    record = Record(f"live_search_{name}", about)
    for seed in range(options.sweeps):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            folder = Path(scratch)
            hand_over(work, data_dir, folder)
            for side in SIDES if seed % 2 == 0 else SIDES[::-1]:
                search = ours if side == "ours" else theirs
                run = {"side": side, "seed": seed, **search(work, seed, seconds, data_dir, folder)}
                record.add(run | {"confirmed": confirmed(work, data_dir, run["best"])})
    return record.write(options.evidence, figures(record.runs))


def ours(work: Workload, seed: int, seconds: float, data_dir: Path | None, folder: Path) -> dict[str, Any]:
    """Run our sweep, and return what it names as the best settings."""
    arguments = [*arguments_of_ours(work, seed, data_dir), "--time-budget", f"{seconds}s"]
    run = command.sweep(arguments, folder, "ours", budget=True)
    winner = run.state.trials[(run.done.answer["winner"] or run.done.answer["best"])["trial"]]
    return {
        "wall_s": round(run.done.wall_s, 2),
        "trials": sum(not trial.final for trial in run.state.trials.values()),
        "epochs": len(run.epochs),
        "best": {name: winner.config[name] for name in RANGES},
    }


def theirs(work: Workload, seed: int, seconds: float, data_dir: Path | None, folder: Path) -> dict[str, Any]:
    """Run the baseline, and return its best trial's settings."""
    run = run_theirs(work, seed, folder, "--seconds", str(seconds))
    return {name: run[name] for name in ("wall_s", "trials", "epochs", "best")}


def confirmed(work: Workload, data_dir: Path | None, params: dict[str, float]) -> list[float]:
    """Train the settings with further seeds, and return the accuracy of each run on the test part."""
    import torch

    from trainables import datasets, evaluation
    from trainables.batches import Batches
    from trainables.config import TrialConfig
    from trainables.loop import TrialData, TrialState, train
    from trainables.splits import search_data

    torch.set_num_threads(2)
    dataset, cpu = datasets.load(work.dataset, datasets.Reading(data_dir)), torch.device("cpu")
    data, (images, labels) = search_data(dataset, work.subset), datasets.open_test(dataset)
    batches, test = Batches.of(data, cpu), Batches(np.asarray(images), labels, data.mean, data.std, cpu)
    found = []
    for seed in SEEDS:
        config = TrialConfig(max_epochs=work.max_epochs, precision="float32", seed=seed).replace(
            **fixed(work), **params
        )
        trial = TrialData.select(config, data, batches)
        state = TrialState.start(config, trial, cpu)
        for epoch in train(trial, state):
            say(f"seed {seed}: epoch {epoch.epoch}, {epoch.val_accuracy}")
        logits, truth = evaluation.predict(config, test, torch.arange(len(labels)), state.kept.predictor)
        found.append(float((logits.argmax(1) == truth).float().mean()))
    return found


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the differences of the confirmed scores, and what each side did."""
    sides = {side: [run for run in runs if run["side"] == side] for side in SIDES}
    means = {side: [statistics.fmean(run["confirmed"]) for run in found] for side, found in sides.items()}
    gains = [ours - plain for ours, plain in zip(means["ours"], means["plain"], strict=True)]
    at_least = ("no worse in any", "min"), ("better in the mean", "mean")
    found = [
        Figure(f"test accuracy of the best settings, ours minus stock: {what}", "", gains, Target(0, False, statistic))
        for what, statistic in at_least
    ]
    for side in SIDES:
        found.append(Figure(f"{side}: test accuracy of the best settings", "", means[side]))
        found += [
            Figure(f"{side}: {name}", unit, [float(run[name]) for run in sides[side]])
            for name, unit in (("wall_s", "s"), ("trials", ""), ("epochs", ""))
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
