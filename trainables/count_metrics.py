"""Metrics that follow from counts of rows by class alone: those of labels, of predictions, and of both together.

They are computed alike from torch tensors, in training, and from numpy arrays, where rows are drawn again for
intervals. A metric that is 0 / 0 for a class, such as the precision of one that was never predicted, is undefined
(scikit-learn's `zero_division=nan`). So is its mean over all classes then: None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

ROUNDING = 1e-12  # of counts that are weighted: of whole numbers of rows the least share is 2 / rows


class Counts(NamedTuple):
    """Rows of each class, float64 [C] each, as tensors or as arrays."""

    correct: Any  # labelled correctly
    predicted: Any  # with the class as prediction
    actual: Any  # with the class as label


def recalls(counts: Counts) -> Any:
    """Return the recall of each class that has rows, float64 [at most C]."""
    there = counts.actual > 0
    return counts.correct[there] / counts.actual[there]


def mcc(counts: Counts) -> float | None:
    """Return Matthews' correlation coefficient of any number of classes, in -1..1 (Gorodkin 2004, equation 8).

    None if all labels, or all predictions, are of one class.
    """
    rows = float(counts.actual.sum())
    labels = rows**2 - float((counts.actual**2).sum())
    predictions = rows**2 - float((counts.predicted**2).sum())
    if min(labels, predictions) <= ROUNDING * rows**2:
        return None
    both = rows * float(counts.correct.sum()) - float((counts.actual * counts.predicted).sum())
    return both / math.sqrt(labels * predictions)


def average(per_class: Any, positive: int) -> float | None:
    """Return the mean over classes, or of two the positive one's value; None if a class has none (0 / 0)."""
    value = float(per_class[positive] if len(per_class) == 2 else per_class.mean())
    return None if value != value else value


COUNT_METRICS: dict[str, Callable[[Counts, int], float | None]] = {
    "accuracy": lambda counts, positive: float(counts.correct.sum() / counts.actual.sum()),
    "balanced_accuracy": lambda counts, positive: float(recalls(counts).mean()),
    "f1": lambda counts, positive: average(2 * counts.correct / (counts.predicted + counts.actual), positive),
    "precision": lambda counts, positive: average(counts.correct / counts.predicted, positive),
    "recall": lambda counts, positive: average(counts.correct / counts.actual, positive),
    "worst_recall": lambda counts, positive: float(recalls(counts).min()),
    "mcc": lambda counts, positive: mcc(counts),
}
"""Name → the metric of counts, and of the positive one of two classes.

Balanced and worst recall are over the classes that have rows; of two classes balanced accuracy is the ROC-AUC of hard
labels.
"""
