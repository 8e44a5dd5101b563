"""The value of labels: the score against `train_fraction`, and what each part of that curve costs.

On a fixed validation set more data nearly always wins, so the fraction of the best trial says little; the point where
the curve flattens shows how many labels are enough. Only trials in full count: ASHA stops weak trials early, and
their scores are of fewer epochs. The trials that it let pass are the better ones of their bin, so the medians are those
of survivors.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from orchestrator.plan.plan import Plan
from trainables.epoch_metrics import direction_of

COLUMNS = ["arm", "status", "score", "config.train_fraction", "train_rows", "train_s"]  # those of `Point`
BINS = 5  # at most; each has the same number of trials in full, as far as equal fractions allow
HEADING = ("train_fraction", "labels", "trials", "in full", "best", "median", "train s")
NOTE = (
    "best and median are of trials in full; trials that were stopped early are only counted, and as they were "
    "the weaker ones, the medians are of survivors"
)
TRIALS_A_BIN = 3  # at least, so that a median means something


class Point(NamedTuple):
    """The values of a leaderboard's row that the curve is computed from."""

    arm: str | None
    status: str
    score: float | None
    fraction: float | None  # config.train_fraction
    labels: int | None  # different rows trained on
    train_s: float


@dataclass(frozen=True)
class Bin:
    """Trials of similar `train_fraction`: `trials` have a score, `completed` of them ran in full.

    `labels`, `best`, `median` and `train_s` are of the trials in full.
    """

    low: float  # smallest and largest fraction of any of the trials
    high: float
    labels: int | None  # different rows trained on, the median
    trials: int
    completed: int
    best: float
    median: float
    train_s: float  # seconds in training steps, the median

    def cells(self) -> list[str]:
        """Return the row of a table that begins with `HEADING`."""
        fraction = f"{self.low:.3g}" if self.low == self.high else f"{self.low:.2f}–{self.high:.2f}"
        labels = "" if self.labels is None else f"{self.labels:,}"
        scores = [f"{self.best:.4f}", f"{self.median:.4f}", f"{self.train_s:.3g}"]
        return [fraction, labels, str(self.trials), str(self.completed), *scores]


def curves(planned: Plan, table: pa.Table) -> dict[str, list[Bin]]:
    """Return the curve of each arm that has one, computed from the trials in `table`, a leaderboard.

    Empty where `train_fraction` is not searched.
    """
    if "train_fraction" not in planned.space.distributions:
        return {}
    points = [Point(*row) for row in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]
    metric = planned.space.base.metric
    by_arm = {arm: curve([point for point in points if (point.arm or "") == arm], metric) for arm in planned.arms}
    return {arm: bins for arm, bins in by_arm.items() if bins}


def curve(points: Iterable[Point], metric: str) -> list[Bin]:
    """Return the curve of the trials in `points`; the smallest fraction first.

    Empty unless trials of at least two fractions ran in full. Call it once per arm: arms learn differently.

    Args:
        metric: decides whether the highest or the lowest score is the best.
    """
    scored = [point for point in points if point.score is not None and point.fraction is not None]
    completed = sorted((point for point in scored if point.status == "completed"), key=_fraction)
    if len({_fraction(point) for point in completed}) < 2:
        return []
    better = max if direction_of(metric) == "max" else min
    parts, bins = _binned(completed), []
    edges = [0.0, *(_fraction(part[0]) for part in parts[1:]), math.inf]
    for inside, (start, end) in zip(parts, pairwise(edges), strict=True):
        fractions = [_fraction(point) for point in scored if start <= _fraction(point) < end]
        scores = [point.score for point in inside if point.score is not None]
        labels = [point.labels for point in inside if point.labels is not None]
        bins.append(
            Bin(
                low=min(fractions),
                high=max(fractions),
                labels=round(statistics.median(labels)) if labels else None,
                trials=len(fractions),
                completed=len(inside),
                best=better(scores),
                median=statistics.median(scores),
                train_s=statistics.median(point.train_s for point in inside),
            )
        )
    return bins


def _binned(points: Sequence[Point]) -> list[Sequence[Point]]:
    """Split `points`, sorted by fraction, into parts of about the same size; equal fractions stay together."""
    count = min(BINS, max(2, len(points) // TRIALS_A_BIN))
    starts = [i for i in range(1, len(points)) if _fraction(points[i]) != _fraction(points[i - 1])]
    if len(starts) >= count:  # else every fraction has a separate bin
        wanted = [len(points) * i / count for i in range(1, count)]
        starts = sorted({min(starts, key=lambda start: abs(start - place)) for place in wanted})
    return [points[start:end] for start, end in pairwise([0, *starts, len(points)])]


def _fraction(point: Point) -> float:
    return point.fraction or 0.0
