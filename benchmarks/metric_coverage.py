"""Coverage of the intervals over rows of every metric, in a simulation.

    python -m benchmarks.metric_coverage

Nothing is trained; truth is known. A model of C classes gives each row logits that are standard normal, plus a skill at
the label that differs between classes: signal · (1 + sin(class) / 2). Its true metrics are those of 400,000 rows or
more with the test set's shares of classes. Test sets are stratified: each class has its number of rows in every one.
The share of test sets is counted whose interval (95 %) holds the true value; those where the metric is undefined do not
count.

Targets: where every class has 30 rows or more, at least 92 % of the test sets for every metric. Fewer rows a class have
no target: there the mean precision, a mean of ratios, is biased. The worst recall's
interval is meant to hold more often than 95 %.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.assessment.row_intervals import row_interval, value_of
from trainables.row_predictions import RowPredictions

TRUTH, ENOUGH = 400_000, 30
METRICS = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "worst_recall", "mcc", "loss", "roc_auc")


@dataclass(frozen=True)
class Scenario:
    """Shares of the classes, the rows of a test set, and how well the model knows the classes."""

    shares: tuple[float, ...]
    rows: int
    signal: float

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The rows of each class."""
        shares = np.array(self.shares) / sum(self.shares)
        return np.maximum(np.rint(shares * self.rows), 1).astype(np.int64)


SCENARIOS = {
    "2 classes": Scenario((1, 1), 300, 2.0),
    "9 to 1": Scenario((9, 1), 300, 2.2),
    "2 classes, hardly a mistake": Scenario((1, 1), 300, 4.0),
    "10 classes": Scenario((1,) * 10, 1000, 3.0),
    "10 classes, uneven": Scenario((*(2.0**-i for i in range(8)), 0.01, 0.01), 1000, 3.5),
    "100 classes of 10 rows": Scenario((1,) * 100, 1000, 4.0),
    "16 classes, 160 rows": Scenario((8, 7, 6, 5, 5, 4, 4, 4, 3, 3, 2, 2, 2, 1, 1, 1), 160, 3.0),
}


@dataclass(frozen=True)
class Options:
    """Simulate how often intervals over rows hold the true value."""

    test_sets: int = 300
    """Test sets of each scenario."""
    seed: int = 0
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("metric_coverage", asdict(options))
    judged: list[float] = []
    for place, (name, scenario) in enumerate(SCENARIOS.items()):
        found = simulated(scenario, options.test_sets, np.random.default_rng((options.seed, place)))
        record.add({"scenario": name, "rows": int(scenario.sizes.sum()), "fewest": int(scenario.sizes.min()), **found})
        if scenario.sizes.min() >= ENOUGH:
            judged += [float(value) for key, value in found.items() if key.endswith("_held")]
    figure = Figure("coverage of 95 % intervals over rows, every metric", "", judged, Target(0.92, False, "min"))
    return 0 if record.write(options.evidence, [figure]) else 1


def simulated(scenario: Scenario, test_sets: int, random: np.random.Generator) -> dict[str, float]:
    """Return each metric's true value, the share of intervals that hold it, their mean width and their number."""
    names = [name for name in METRICS if name != "roc_auc" or len(scenario.shares) == 2]
    whole = drawn(scenario, max(TRUTH // scenario.rows, 1), random)
    truth = {name: value_of(whole, name, 1) or 0.0 for name in names}
    held: dict[str, list[bool]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for _ in range(test_sets):
        rows = drawn(scenario, 1, random)
        for name in names:
            value = value_of(rows, name, 1)
            interval = None if value is None else row_interval(rows, name, value, 1)
            if interval is not None:
                held[name].append(interval.low <= truth[name] <= interval.high)
                widths[name].append(interval.high - interval.low)
    found: dict[str, float] = {}
    for name in names:
        found |= {f"{name}_true": round(truth[name], 4), f"{name}_held": round(float(np.mean(held[name])), 4)}
        found |= {f"{name}_width": round(float(np.mean(widths[name])), 4), f"{name}_n": len(held[name])}
    return found


def drawn(scenario: Scenario, times: int, random: np.random.Generator) -> RowPredictions:
    """Return what the model predicts for `times` test sets."""
    labels = np.repeat(np.arange(len(scenario.shares)), scenario.sizes * times)
    places = np.arange(len(labels))
    logits = random.standard_normal((len(labels), len(scenario.shares)), dtype=np.float32)
    logits[places, labels] += scenario.signal * (1 + np.sin(labels) / 2)
    losses = np.log(np.exp(logits).sum(1)) - logits[places, labels]
    return RowPredictions(labels, logits.argmax(1), losses, np.ones(len(labels), dtype=np.bool_))


if __name__ == "__main__":
    sys.exit(main())
