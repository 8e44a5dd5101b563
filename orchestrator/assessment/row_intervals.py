"""Intervals of one model's metrics over rows, from what it predicted for each row of a test set.

The accuracy, and the share of labels among the five likeliest classes, are shares of the rows: Wilson's interval. For
other metrics rows are drawn again, from each class as many as it has, less one, each weighted so that the classes keep
their shares. Test sets here are stratified by class, and so is the bootstrap; drawing one row less of each class makes
its variance unbiased for few rows, too (McCarthy and Snowden 1985, Vital and Health Statistics 2/95; Rao and Wu 1988,
Journal of the American Statistical Association 83). Two rows in all are added to the classes, whose predictions are
those of any rows, as Agresti and Coull (1998, The American Statistician 52) add successes and failures: else a class
without a mistake would be taken for one that cannot have any. Only the standard error is taken from the draws. The
interval is Wilson's at the number of rows at which a share would have that error (Dean and Pagano 2015, Journal of
Survey Statistics and Methodology 3; Korn and Graubard 1998, Survey Methodology 24, for Clopper and Pearson's): it stays
within the metric's bounds. A loss is a mean over rows and has no upper bound: its standard error is that of a
stratified mean, and the interval is of its logarithm.

The worst recall is no smooth function of the rows: the recalls of all classes get intervals that hold at the same time
(Šidák 1967, Journal of the American Statistical Association 62), and its interval is from the lowest of their lower
ends to the lowest of their upper ends. It is wide for many classes, and holds more often than its level says.

`tests/test_row_intervals.py` and `benchmarks/metric_coverage.py` measure how often the intervals hold the true value.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orchestrator.assessment.intervals import Interval, wilson
from orchestrator.record.facts import Measured
from trainables.count_metrics import COUNT_METRICS, Counts
from trainables.epoch_metrics import FINAL_METRICS
from trainables.row_predictions import RowPredictions

ADDED = {"roc_auc": 0.25}  # rows whose predictions are those of any rows, if not 2; the area is sensitive to them
DRAWS = 400  # the standard error is then exact to some 4 %
Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.int64], NDArray[np.int64], Floats], float | None]
"""A metric of labels [M], of the rows [M] whose predictions go with them, and of weights [M]; None if undefined."""


def interval_on(part: Measured, name: str, positive: int | None, level: float = 0.95) -> Interval | None:
    """Return the interval of a metric of one model on a part of the data; see `row_interval`.

    It is None, too, if the metric is undefined there, and of records of earlier versions.
    """
    value = part.metrics.get(name)
    if value is None or part.predictions is None:
        return None
    return _cached(part.predictions, part.rows, name, value, 1 if positive is None else positive, level)


@lru_cache(maxsize=64)  # tables are written again and again while a sweep runs
def _cached(text: str, rows: int, name: str, value: float, positive: int, level: float) -> Interval | None:
    return row_interval(RowPredictions.unpack(text, rows), name, value, positive, level)


def row_interval(rows: RowPredictions, name: str, value: float, positive: int, level: float = 0.95) -> Interval | None:
    """Return the interval of the metric `name` of one model over all rows like these, of the same class shares.

    Args:
        name: as in `trainables.epoch_metrics.FINAL_METRICS`.
        value: the metric of these rows.
        positive: of two classes the one that precision, recall, F1 and ROC-AUC are of.

    Returns:
        None if the metric needs more than is known of the rows: the ROC-AUC of three and more classes, and the user's.
    """
    if name in SHARES:
        return wilson(int(SHARES[name](rows).sum()), len(rows.labels), level)
    if name == "worst_recall":
        return _worst_recall(rows, level)
    if name == "loss":
        return _of_loss(rows, value, level)
    metric = _metric(rows, name, positive)
    if metric is None:
        return None
    drawn = [one for draw in _draws(rows.labels, ADDED.get(name, 2.0)) if (one := metric(*draw)) is not None]
    if len(drawn) < 2:
        return None
    low, high = bounds(name)
    width = high - low
    mean, error = (statistics.fmean(drawn) - low) / width, statistics.stdev(drawn) / width
    effective = mean * (1 - mean) / error**2 if error > 0 else float(len(rows.labels))
    inner = _wilson((value - low) / width, effective, level)
    return Interval(low + inner.low * width, low + inner.high * width)


def value_of(rows: RowPredictions, name: str, positive: int) -> float | None:
    """Return the metric `name` of these rows; None if it is undefined, or needs more than is known of them."""
    if name in SHARES:
        return float(SHARES[name](rows).mean())
    if name == "loss":
        return float(rows.losses.mean(dtype=np.float64))
    metric, every = _metric(rows, name, positive), np.arange(len(rows.labels))
    return None if metric is None else metric(rows.labels, every, np.ones(len(every)))


SHARES: dict[str, Callable[[RowPredictions], NDArray[np.bool_]]] = {
    "accuracy": lambda rows: rows.labels == rows.predictions,
    "top5_accuracy": lambda rows: rows.in_top,
}
"""Metrics that are shares of all rows → the rows that count."""


def bounds(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value that the metric `name` can have; a user's may be anything."""
    return BOUNDS.get(name, (0.0, 1.0) if name in FINAL_METRICS else (-math.inf, math.inf))


BOUNDS = {"mcc": (-1.0, 1.0), "loss": (0.0, math.inf)}
"""Metrics with other bounds than 0 and 1."""


def _wilson(share: float, rows: float, level: float) -> Interval:
    """Return Wilson's interval of a share of so many rows, which need not be a whole number."""
    square = _normal(level) ** 2 / rows
    middle, reach = share + square / 2, math.sqrt(square * share * (1 - share) + square**2 / 4)
    return Interval(max((middle - reach) / (1 + square), 0.0), min((middle + reach) / (1 + square), 1.0))


def _of_loss(rows: RowPredictions, value: float, level: float) -> Interval:
    losses, sizes = rows.losses.astype(np.float64), np.bincount(rows.labels)
    means = np.bincount(rows.labels, losses) / np.maximum(sizes, 1)
    squares = np.bincount(rows.labels, (losses - means[rows.labels]) ** 2)
    error = math.sqrt(float((squares * sizes / np.maximum(sizes - 1, 1)).sum())) / len(losses)
    reach = math.exp(_normal(level) * error / value) if value > 0 else 1.0
    return Interval(value / reach, value * reach)


def _metric(rows: RowPredictions, name: str, positive: int) -> Metric | None:
    """Return the metric of drawn rows; None if what is known of the rows does not suffice for it."""
    classes = int(max(rows.labels.max(), rows.predictions.max(), 1)) + 1
    if name == "roc_auc":
        return _area(rows, positive) if classes == 2 else None
    if name not in COUNT_METRICS:
        return None

    def of_counts(labels: NDArray[np.int64], givers: NDArray[np.int64], weights: Floats) -> float | None:
        predictions = rows.predictions[givers]
        every = ((labels, weights * (labels == predictions)), (predictions, weights), (labels, weights))
        counts = Counts(*(np.bincount(numbers, of_each, minlength=classes) for numbers, of_each in every))
        with np.errstate(invalid="ignore"):
            return COUNT_METRICS[name](counts, positive)

    return of_counts


def _area(rows: RowPredictions, positive: int) -> Metric:
    """Return the area under the ROC curve of two classes, whose weights do not matter to it."""
    losses = np.maximum(rows.losses.astype(np.float64), 1e-9)
    odds = -losses - np.log(-np.expm1(-losses))  # of the label, as logarithms
    places = np.unique(np.where(rows.labels == positive, odds, -odds), return_inverse=True)[1]

    def of_ranks(labels: NDArray[np.int64], givers: NDArray[np.int64], weights: Floats) -> float | None:
        ours, others = places[givers[labels == positive]], places[givers[labels != positive]]
        if not len(ours) or not len(others):
            return None
        counts = np.bincount(others, minlength=len(places))
        below = np.cumsum(counts) - counts / 2
        return float(below[ours].mean() / len(others))

    return of_ranks


def _draws(labels: NDArray[np.int64], added: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
    """Yield what a `Metric` is of, `DRAWS` times, the same every time; so many rows are `added` to all classes."""
    random, order, rows = np.random.default_rng(0), np.argsort(labels, kind="stable"), len(labels)
    sizes = np.bincount(labels)
    drawn = np.where(sizes > 1, sizes - 1, sizes)
    first, size = (np.repeat(of_class, drawn) for of_class in (np.cumsum(sizes) - sizes, sizes))
    weights, of_draws = size / np.repeat(drawn, drawn), labels[order[first]]
    of_class = added / int((sizes > 0).sum())
    for _ in range(DRAWS):
        givers = order[first + (random.random(len(size)) * size).astype(np.int64)]
        any_row = random.random(len(size)) * (size + of_class) < of_class
        givers[any_row] = random.integers(rows, size=int(any_row.sum()))
        yield of_draws, givers, weights


def _worst_recall(rows: RowPredictions, level: float) -> Interval:
    sizes = np.bincount(rows.labels)
    right = np.bincount(rows.labels[rows.labels == rows.predictions], minlength=len(sizes))
    of_each = level ** (1 / int((sizes > 0).sum()))
    pairs = zip(right.tolist(), sizes.tolist(), strict=True)
    found = [wilson(correct, size, of_each) for correct, size in pairs if size]
    return Interval(min(one.low for one in found), min(one.high for one in found))


def _normal(level: float) -> float:
    """Return the number of standard deviations within which a normal variable is with probability `level`."""
    return statistics.NormalDist().inv_cdf((1 + level) / 2)
