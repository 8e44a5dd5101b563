"""The share of the slots' time that is training, evaluation and features.

    python -m benchmarks.slot_use --data-dir DIR                 (or BENCHMARK_CIFAR10=DIR)

Sweeps as a user runs them, on two slots, with their confirmation. Digits with 64 trials, which take a second or two
each: of both slots' time from the command to its end, with imports, the start of Ray and the files at the end. 8 trials
of a ResNet-20 on 6,000 rows of CIFAR-10, so that an attempt takes 20 s and more: from the first proposal to the last
end, as the end of a sweep says it. Nothing is compared.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, cifar10_files, two_cores

SLOTS = 2
CIFAR10 = ("--subset", "6000", "--set", "model=resnet20", "train_fraction=1", "--max-epochs", "6", "--grace", "2")


@dataclass(frozen=True)
class Options:
    """Measure what slots do with their time."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the sweeps of digits; CIFAR-10 has the first one."""
    trials: tuple[int, int] = (64, 8)
    """Trials of digits and of CIFAR-10."""
    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("slot_use", asdict(options))
    figures = []
    for seed in options.seeds:
        record.add({"sweep": "digits", **measure(["digits", "--trials", str(options.trials[0])], seed)})
    if (files := cifar10_files(options.data_dir)) is not None:
        asked = ["cifar10", "--data-dir", str(files.absolute()), "--trials", str(options.trials[1]), *CIFAR10]
        record.add({"sweep": "cifar10", **measure(asked, options.seeds[0])})
    for name, figure, target in (("digits", "of_all", 0.75), ("cifar10", "slot_use", 0.97)):
        values = [run[figure] for run in record.runs if run["sweep"] == name]
        shown = f"{name}: share of the slots' time, {'start-up included' if figure == 'of_all' else 'first to last'}"
        figures += [Figure(shown, "", values, Target(target, at_most=False))] if values else []
    return 0 if record.write(options.evidence, figures) else 1


def measure(arguments: list[str], seed: int) -> dict[str, Any]:
    """Run a sweep and return what its slots did, and for how long its attempts ran."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
        asked = [*arguments, "--seed", str(seed), "--slots", str(SLOTS)]
        run = command.sweep(asked, Path(results), f"seed-{seed}")
    attempts = defaultdict[tuple[int, int], float](float)
    for number, trial in run.state.trials.items():
        for epoch in trial.epochs:
            attempts[number, epoch["attempt"]] += epoch["train_s"] + epoch["eval_s"]
    worked_s = sum(trial.worked_s for trial in run.state.trials.values())
    return {
        "seed": seed,
        "wall_s": round(run.done.wall_s, 3),
        "worked_s": round(worked_s, 3),
        "of_all": worked_s / (SLOTS * run.done.wall_s),
        "slot_use": run.done.answer["slot_use"],
        "trials": run.done.answer["trials"],
        "epochs": len(run.epochs),
        "attempts": len(attempts),
        "least_attempt_s": round(min(attempts.values()), 3),
        "median_attempt_s": round(statistics.median(attempts.values()), 3),
        "phases": run.phases(),
    }


if __name__ == "__main__":
    sys.exit(main())
