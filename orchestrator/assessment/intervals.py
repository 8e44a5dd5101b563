"""How sure an accuracy is: intervals over seeds and over rows, and which settings cannot be told apart.

What is known of a confirmed trial are its hits, bool [S, N]: whether the model of each of S seeds was right on each of
the same N rows. Both are drawn from many: another seed is another model, other rows are other questions. What hits vary
by is taken apart into seeds, rows and single answers: a two-way layout without replication, both ways random (Searle,
Casella and McCulloch 1992, Variance Components, ch. 4). From a single seed nothing is known of seeds, and whatever
needs two is None. How often the intervals hold what they should: `benchmarks/coverage.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


class Tie(NamedTuple):
    """Whether the best is better than another candidate; the two are tied where `adjusted` is above the level.

    `difference` is the best's mean accuracy less the other's. `p` is two-sided and of this pair alone, `adjusted` of
    all comparisons together; both are None from one seed.
    """

    difference: float
    p: float | None
    adjusted: float | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Where the mean over all seeds lies, on these rows: m ± t s / √S, Student's t with S - 1 degrees of freedom.

    Args:
        values: scores of S seeds on the same rows, by any metric.

    Returns:
        None for one value, and where all are equal, as happens on few rows: they say nothing of how seeds differ.
    """
    if len(set(values)) < 2:
        return None
    reach = _student(len(values) - 1, 1 - level) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.fmean(values) - reach, statistics.fmean(values) + reach)


def wilson(correct: int, rows: int, level: float = 0.95) -> Interval:
    """Where the accuracy p of one model over all rows lies: (hits / N - p)² ≤ z² p (1 - p) / N.

    Wilson 1927; recommended by Brown, Cai and DasGupta 2001 (Statistical Science 16).
    """
    return _solved(correct / rows, 0.0, _normal(1 - level) ** 2 / rows, 1.0)


def prediction_interval(correct: Correct, new_rows: int, level: float = 0.95) -> Interval | None:
    """Where the accuracy q of one more model of these settings will lie on M new rows: a test score is held to this.

    With mean accuracy p and the variance s² between the seeds' accuracies:

        (p - q)² ≤ t'² (A + C),   A = s² (1 + 1/S),   C = π (1 - π) max((1 - 2r) / N + 1/M, 0)

    A is of seeds, C of rows. r is the part of rows' variance that is a seed's own luck: A has it already, as seeds that
    err on different rows differ. π is the accuracy on old and new rows together, so the variance is taken at q, too, as
    Wilson does, which serves at p = 1. t' = (t A + z C) / (A + C) with C at p (Cochran 1964, Biometrics 20): Student's
    t where seeds decide, the normal z where rows do, and between the two within some 2 points of the level at S = 3.

    One of the S models itself varies less than one more, and is inside no less often.

    Args:
        hits: [S, N] of S seeds on the rows that they were scored on.
        new_rows: M.

    Returns:
        None from one seed.
    """
    seeds, rows = correct.shape
    if seeds < 2:
        return None
    mean, squares = float(correct.mean()), _mean_squares(correct)
    of_rows = max(squares.rows - squares.rest, 0) / seeds
    own = squares.rest / (of_rows + squares.rest) if squares.rest else 0.0
    a, c = squares.seeds / rows * (1 + 1 / seeds), max((1 - 2 * own) / rows + 1 / new_rows, 0)
    factor = _between(a, mean * (1 - mean) * c, _student(seeds - 1, 1 - level), _normal(1 - level)) ** 2
    return _solved(mean, factor * a, factor * c, new_rows / (rows + new_rows))


def ties(best: Correct, others: Sequence[Correct]) -> list[Tie]:
    """Whether the best of K candidates is better than each of `others`, in their order, over seeds and rows.

    The difference d of two candidates' hits, seed by seed and row by row, has mean squares of seeds, rows and the rest
    (MS, MR, ME): its mean varies by (A + C) / SN with A = MS, C = max(MR - ME, 0), as for readers and cases in Dorfman,
    Berbaum and Metz 1992 (Investigative Radiology 27). It is held against t' = (t A + z C) / (A + C), as in
    `prediction_interval`. At S = 3 and level 5 % this calls 3 to 5 % of equal pairs different.

    Holm's correction (1979, Scandinavian Journal of Statistics 6) is over all K (K - 1) / 2 pairs, since any of them
    could have been the one with the best: for K = 3, over 3.

    Args:
        best: [S, N], the hits of the candidate with the best mean.
        others: [S, N] each, of the same seeds and rows in the same order.

    Raises:
        ValueError: the shapes differ.
    """
    shapes = {best.shape, *(other.shape for other in others)}
    if len(shapes) > 1:
        raise ValueError(f"hits of {sorted(shapes)}: candidates are compared on the same seeds and rows")
    differences = [best.astype(np.int8) - other for other in others]
    if len(best) < 2:
        return [Tie(float(each.mean()), None, None) for each in differences]
    found = [_p_value(each) for each in differences]
    pairs, least, adjusted = len(others) * (len(others) + 1) // 2, 0.0, list(found)
    for place, i in enumerate(sorted(range(len(found)), key=found.__getitem__)):
        least = adjusted[i] = max(least, min(1.0, (pairs - place) * found[i]))
    return [Tie(float(d.mean()), p, a) for d, p, a in zip(differences, found, adjusted, strict=True)]


class _MeanSquares(NamedTuple):
    seeds: float
    rows: float
    rest: float


def _mean_squares(values: NDArray[np.generic]) -> _MeanSquares:
    """Mean squares of values [S, N] with one value a cell, S > 1."""
    seeds, rows = values.shape
    centred = values - values.mean(dtype=np.float64)
    of_seeds, of_rows = centred.mean(1), centred.mean(0)
    rest = centred - of_seeds[:, None] - of_rows
    return _MeanSquares(
        seeds=rows * float(of_seeds @ of_seeds) / (seeds - 1),
        rows=seeds * float(of_rows @ of_rows) / max(rows - 1, 1),
        rest=float((rest**2).sum()) / ((seeds - 1) * max(rows - 1, 1)),
    )


def _p_value(difference: NDArray[np.int8]) -> float:
    """Of a mean of 0 over seeds and rows, two-sided: [S, N], S > 1; at least 1e-16."""
    mean, squares = abs(float(difference.mean())), _mean_squares(difference)
    a, c = squares.seeds, max(squares.rows - squares.rest, 0)
    if mean == 0:
        return 1.0
    if a + c == 0:
        return 1e-16
    found, low, high = mean / math.sqrt((a + c) / difference.size), 1e-16, 1.0
    for _ in range(60):  # by halves of the logarithm: t' falls as p grows
        p = math.sqrt(low * high)
        critical = _between(a, c, _student(len(difference) - 1, p), _normal(p))
        low, high = (p, high) if critical > found else (low, p)
    return high


def _between(a: float, c: float, student: float, normal: float) -> float:
    """Cochran's t', weighted by the variances of seeds and of rows."""
    return (a * student + c * normal) / (a + c) if a + c else normal


def _solved(p: float, a: float, c: float, share: float) -> Interval:
    """All q in [0, 1] with (p - q)² ≤ a + c π (1 - π), π = p + share (q - p)."""
    square, half = 1 + c * share**2, c * share * (1 - 2 * p) / 2
    root = math.sqrt(half**2 + square * (a + c * p * (1 - p)))
    return Interval(max(p + (half - root) / square, 0.0), min(p + (half + root) / square, 1.0))


def _normal(alpha: float) -> float:
    """What a standard normal variable exceeds, up or down, with probability `alpha`."""
    return -statistics.NormalDist().inv_cdf(alpha / 2)


def _student(freedom: int, alpha: float) -> float:
    """As `_normal`, of Student's t."""
    from scipy.special import stdtrit  # 0.2 s that only a confirmed sweep needs

    return -float(stdtrit(freedom, alpha / 2))
