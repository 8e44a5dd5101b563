"""Confidence in an accuracy: intervals over seeds and over rows, and which candidates cannot be distinguished.

All that is known of a confirmed trial are its correct predictions, bool [S, N]: whether the model of each of S seeds
classified each of the same N rows correctly. Both are samples: another seed gives another model, and other rows are
other questions. The variance of the predictions is split into seeds, rows and the rest: a two-way layout without
replication, with both factors random (Searle, Casella and McCulloch 1992, Variance Components, ch. 4). A single seed
says nothing about the variance between seeds, so whatever needs two seeds is then None. `benchmarks/coverage.py`
measures how often the intervals hold the true value.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]
Values = NDArray[np.bool_] | NDArray[np.float64]
"""Correct predictions, or values of another metric, row by row: see `row_values`."""


class Interval(NamedTuple):
    """A closed interval: both ends belong to it."""

    low: float
    high: float


class Tie(NamedTuple):
    """A comparison of the best candidate with another one; the two are tied where `adjusted` is above the level.

    `difference` is the mean of the best, such as its accuracy, minus that of the other. `p` is the two-sided p-value of
    this pair alone, `adjusted` the p-value corrected for all comparisons; both are None with one seed.
    """

    difference: float
    p: float | None
    adjusted: float | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Return the interval of the mean over all seeds on these rows: m ± t s / √S, t of S - 1 degrees of freedom.

    Args:
        values: scores of S seeds on the same rows, by any metric.

    Returns:
        None for one value, and where all values are equal, as happens on few rows: they do not show how seeds differ.
    """
    if len(set(values)) < 2:
        return None
    reach = _student(len(values) - 1, 1 - level) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.fmean(values) - reach, statistics.fmean(values) + reach)


def wilson(correct: int, rows: int, level: float = 0.95) -> Interval:
    """Return the interval of one model's accuracy p over all rows: (correct / N - p)² ≤ z² p (1 - p) / N.

    Wilson 1927; recommended by Brown, Cai and DasGupta 2001 (Statistical Science 16).
    """
    return _solved(correct / rows, 0.0, _normal(1 - level) ** 2 / rows, 1.0)


def of_share(share: float, rows: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval of a share of `rows`, such as an accuracy."""
    return wilson(round(share * rows), rows, level)


def prediction_interval(correct: Correct, new_rows: int, level: float = 0.95, folds: int = 1) -> Interval | None:
    """Return the interval of the accuracy q of one more model of these settings on M new rows, such as a test set.

    With mean accuracy p and the variance s² between the seeds' accuracies:

        (p - q)² ≤ t'² (A + C),   A = s² (1 + 1/S),   C = π (1 - π) max((1 - 2r) / N + 1/M, 0)

    A is the variance from seeds, C that from rows. r is the share of the rows' variance that is particular to a seed:
    A includes it already, since seeds that err on different rows differ in accuracy. π is the accuracy on old and new
    rows together, so the variance is taken at q as well, as Wilson does, which also works at p = 1. With C at p,
    t' = (t A + z C) / (A + C) (Cochran 1964, Biometrics 20): Student's t where the seeds' variance dominates, the
    normal z where the rows' does. In between, the coverage is within some 2 points of the level at S = 3.

    Seeds may agree by chance, the more easily the fewer there are: A + C is at least what it is where the errors of
    different seeds have nothing in common, π (1 - π) (1/SN + 1/M).

    One of the S models themselves varies less than one more model, so it is inside no less often.

    With K folds, each seed has K models, each scored on its own N/K rows, and q is the accuracy of one model. s² is
    then the variance of the mean of K models, in which what is particular to one of them, b², counts 1/K. So

        (p - q)² ≤ t'² (A + B + C),   B = b² (1 - 1/K),   b² = max(E - e K/N, 0)

    E is the residual mean square of the accuracies by seed and fold, [S, K], e that of the predictions, [S, N]: E has
    e K/N by chance alone. B enters t' with Student's t of (S - 1)(K - 1) degrees of freedom. That the K models train on
    different rows is not in B: it cannot be separated from their being scored on different rows (Bengio and Grandvalet
    2004, Journal of Machine Learning Research 5: no estimate of it is unbiased).

    Args:
        correct: [S, N], the correct predictions of S seeds on the rows that they were scored on; with folds, of one
            fold after the other, which have N/K rows each or, the first ones, one more.
        new_rows: M.
        folds: K.

    Returns:
        None with one seed.
    """
    seeds, rows = correct.shape
    if seeds < 2:
        return None
    mean, squares = float(correct.mean()), _mean_squares(correct)
    of_rows = max(squares.rows - squares.rest, 0) / seeds
    own = squares.rest / (of_rows + squares.rest) if squares.rest else 0.0
    a, c = squares.seeds / rows * (1 + 1 / seeds), max((1 - 2 * own) / rows + 1 / new_rows, 0)
    if 0 < mean < 1:  # where seeds agree by chance
        c = max(c, 1 / (seeds * rows) + 1 / new_rows - a / (mean * (1 - mean)))
    b, b_student = 0.0, 0.0
    if folds > 1:
        by_fold = np.stack([part.mean(1) for part in np.array_split(correct, folds, axis=1)], axis=1)
        b = max(_mean_squares(by_fold).rest - squares.rest * folds / rows, 0.0) * (1 - 1 / folds)
        b_student = _student((seeds - 1) * (folds - 1), 1 - level)
    weighted = [(a, _student(seeds - 1, 1 - level)), (b, b_student), (mean * (1 - mean) * c, _normal(1 - level))]
    factor = _between(*weighted) ** 2
    return _solved(mean, factor * (a + b), factor * c, new_rows / (rows + new_rows))


def ties(best: Values, others: Sequence[Values]) -> list[Tie]:
    """Compare the best of K candidates with each of `others`, in their order, over seeds and rows.

    The difference d between two candidates' values, such as correct predictions, seed by seed and row by row, has mean
    squares for seeds, rows and the rest (MS, MR, ME). The variance of its mean is (A + C) / SN with A = MS, C = max(MR
    - ME, 0), as for readers and cases in Dorfman, Berbaum and Metz 1992 (Investigative Radiology 27). The mean over
    its standard error is compared with t' = (t A + z C) / (A + C), as in `prediction_interval`. At S = 3 and level 5 %
    this calls 3 to 5 % of equal pairs different.

    Holm's correction (1979, Scandinavian Journal of Statistics 6) covers all K (K - 1) / 2 pairs, since each of them
    could have been a pair with the best: for K = 3, it covers 3.

    Args:
        best: [S, N], the values of the candidate with the best mean, whose mean is the metric.
        others: [S, N] each, of the same seeds and rows in the same order.

    Raises:
        ValueError: the shapes differ.
    """
    shapes = {best.shape, *(other.shape for other in others)}
    if len(shapes) > 1:
        raise ValueError(f"values of shapes {sorted(shapes)}: candidates are compared on the same seeds and rows")
    differences = [np.subtract(best, other, dtype=np.float64) for other in others]
    if len(best) < 2:
        return [Tie(float(each.mean()), None, None) for each in differences]
    p_values = [_p_value(each) for each in differences]
    pairs, least, adjusted = len(others) * (len(others) + 1) // 2, 0.0, list(p_values)
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = adjusted[i] = max(least, min(1.0, (pairs - place) * p_values[i]))
    return [Tie(float(d.mean()), p, a) for d, p, a in zip(differences, p_values, adjusted, strict=True)]


def difference_interval(difference: NDArray[np.float64], level: float = 0.95) -> Interval | None:
    """Return the interval of the mean of `difference` [S, N] over seeds and rows, with the variance and t' of `ties`.

    None with one seed, or if nothing differs but by the mean, which says nothing of other seeds and rows.
    """
    if len(difference) < 2:
        return None
    mean, squares = float(difference.mean()), _mean_squares(difference)
    a, c = squares.seeds, max(squares.rows - squares.rest, 0)
    factor = _between((a, _student(len(difference) - 1, 1 - level)), (c, _normal(1 - level)))
    half = factor * standard_error(difference)
    return Interval(mean - half, mean + half) if half else None


def standard_error(difference: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of `difference` [S, N] over seeds and rows; of one seed that over rows."""
    if len(difference) < 2:
        return float(difference.std() / math.sqrt(difference.size))
    squares = _mean_squares(difference)
    return math.sqrt((squares.seeds + max(squares.rows - squares.rest, 0)) / difference.size)


class _MeanSquares(NamedTuple):
    seeds: float
    rows: float
    rest: float


def _mean_squares(values: NDArray[np.generic]) -> _MeanSquares:
    """Return the mean squares of `values` [S, N], S > 1, with one value per cell."""
    seeds, rows = values.shape
    centered = values - values.mean(dtype=np.float64)
    of_seeds, of_rows = centered.mean(1), centered.mean(0)
    rest = centered - of_seeds[:, None] - of_rows
    return _MeanSquares(
        seeds=rows * float(of_seeds @ of_seeds) / (seeds - 1),
        rows=seeds * float(of_rows @ of_rows) / max(rows - 1, 1),
        rest=float((rest**2).sum()) / ((seeds - 1) * max(rows - 1, 1)),
    )


def _p_value(difference: NDArray[np.float64]) -> float:
    """Return the two-sided p-value, at least 1e-16, of a mean of 0 of `difference` [S, N], S > 1."""
    mean, squares = abs(float(difference.mean())), _mean_squares(difference)
    a, c = squares.seeds, max(squares.rows - squares.rest, 0)
    if mean == 0:
        return 1.0
    if a + c == 0:
        return 1e-16
    statistic, low, high = mean / math.sqrt((a + c) / difference.size), 1e-16, 1.0
    for _ in range(60):  # bisects the logarithm of p: t' falls as p grows
        p = math.sqrt(low * high)
        critical = _between((a, _student(len(difference) - 1, p)), (c, _normal(p)))
        low, high = (p, high) if critical > statistic else (low, p)
    return high


def _between(*weighted: tuple[float, float]) -> float:
    """Return Cochran's t': the mean of factors, each weighted by the variance before it; the last if all are 0."""
    total = sum(variance for variance, _ in weighted)
    return sum(variance * factor for variance, factor in weighted) / total if total else weighted[-1][1]


def _solved(p: float, a: float, c: float, share: float) -> Interval:
    """Return all q in [0, 1] with (p - q)² ≤ a + c π (1 - π), π = p + share (q - p)."""
    square, half = 1 + c * share**2, c * share * (1 - 2 * p) / 2
    root = math.sqrt(half**2 + square * (a + c * p * (1 - p)))
    return Interval(max(p + (half - root) / square, 0.0), min(p + (half + root) / square, 1.0))


def _normal(alpha: float) -> float:
    """Return the absolute value that a standard normal variable exceeds with probability `alpha`."""
    return -statistics.NormalDist().inv_cdf(alpha / 2)


def _student(freedom: int, alpha: float) -> float:
    """Return the same for Student's t with `freedom` degrees of freedom."""
    from scipy.special import stdtrit  # takes 0.2 s, which only a confirmed sweep needs

    return -float(stdtrit(freedom, alpha / 2))
