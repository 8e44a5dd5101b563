"""The arms of the recipe improved-resnet50, reduced to what two cores can run, over three seeds.

    python -m benchmarks.improved_resnet --data-dir DIR

`python -m orchestrator.sweep --recipe improved-resnet50` on CIFAR-10 with ResNet-14 in place of ResNet-50, 5,000 of
the 50,000 training rows, 30 epochs in place of 50, and no ImageNet weights, so without the arm that has nothing else:
the paper's optimizer, rate, batches, schedule, smoothing and augmentation stay. Five arms × three seeds, the same
three for every arm. Figures are accuracies on 1,000 rows of the official test set, at the last epoch. The question:
is the improved arm above the plain one by more than the deviation between seeds? The accuracies are not comparable
with the paper's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, cifar10_files, two_cores

ARMS = ("plain", "augmentation", "label-smoothing", "cosine", "improved")


@dataclass(frozen=True)
class Options:
    """Compare the plain with the improved arm, and each change alone."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    model: str = "resnet14"
    rows: int = 5_000
    epochs: int = 30
    seeds: int = 3
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    two_cores()
    record = Record("improved_resnet", {**asdict(options), "data_dir": None})
    with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
        arguments = ["--recipe", "improved-resnet50", "--data-dir", str(data_dir), "--subset", str(options.rows)]
        arguments += ["--max-epochs", str(options.epochs), "--confirm-seeds", str(options.seeds), "--arms", *ARMS]
        arguments += ["--set", f"model={options.model}", "weights=none"]
        run = command.sweep(arguments, Path(results), "improved", limit_s=7200)
    for trial in run.state.trials.values():
        measured = {name: value for name, value in trial.final_metrics["test"].to_dict().items() if name != "confusion"}
        gap = (trial.final_metrics["train"].accuracy or 0.0) - measured["accuracy"]
        train_s = sum(epoch["train_s"] for epoch in trial.epochs)
        record.add({"arm": trial.arm, "seed": trial.index, "train_test_gap": gap, "train_s": train_s, **measured})
    by_arm = {arm: [run["accuracy"] for run in record.runs if run["arm"] == arm] for arm in ARMS}
    gains = [better - plain for plain, better in zip(by_arm["plain"], by_arm["improved"], strict=True)]
    figures = [Figure(f"test accuracy, {arm}", "", values) for arm, values in by_arm.items()]
    figures.append(Figure("improved less plain, same seed", "", gains))
    if options.seeds > 1:
        spread = max(statistics.stdev(by_arm[arm]) for arm in ("plain", "improved"))
        ratio = statistics.mean(gains) / spread
        figures.append(Figure("its mean, in the larger deviation between seeds", "", [ratio], Target(1, at_most=False)))
    return 0 if record.write(options.evidence, figures) else 1


if __name__ == "__main__":
    sys.exit(main())
