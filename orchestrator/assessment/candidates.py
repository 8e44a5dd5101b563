"""The candidates of a confirmation: searched trials with their runs by other seeds, and how they compare."""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchestrator.assessment import intervals, row_intervals, row_values
from orchestrator.assessment.ensemble import LEVEL
from orchestrator.assessment.intervals import Correct, Interval
from orchestrator.assessment.row_values import Floats
from orchestrator.record.ranking import direction
from orchestrator.record.state import TrialRecord
from trainables.epoch_metrics import score_name


@dataclass(frozen=True)
class Confirmed:
    """A searched trial with its confirmation runs that completed with a score, by seed."""

    trial: TrialRecord
    runs: tuple[TrialRecord, ...]
    folds: int = 1  # of the rows that every run is scored on

    @property
    def scores(self) -> list[float]:
        """The scores of the runs, by seed."""
        return [run.score for run in self.runs if run.score is not None]

    @property
    def mean(self) -> float:
        """The mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over seeds; 0 of a single one."""
        return statistics.stdev(self.scores) / math.sqrt(len(self.runs)) if len(self.runs) > 1 else 0.0

    @property
    def parameters(self) -> int | None:
        """The number of the model's parameters; None if no run says."""
        return next((run.worker.parameters for run in self.runs if run.worker.parameters is not None), None)

    @property
    def sign(self) -> int:
        """1 if a higher score is better, -1 if a lower one is."""
        return direction(self.trial.metric)

    def on_seeds(self, indices: Sequence[int]) -> Confirmed:
        """Return the same with the runs of some seeds alone."""
        return replace(self, runs=tuple(run for run in self.runs if run.index in indices))

    def interval(self) -> Interval | None:
        """Return the interval of the mean over all seeds, within the metric's bounds."""
        return bounded(intervals.mean_interval(self.scores, LEVEL), score_name(self.trial.metric))

    def correct(self) -> Correct | None:
        """Return which rows of the validation set each run predicted correctly, bool [S, N]; None if one is unknown."""
        measured = [run.final_metrics.get("validation") for run in self.runs]
        rows = [None if one is None else one.correct_rows() for one in measured]
        known = [correct for correct in rows if correct is not None]
        if len(known) < len(rows) or len({len(correct) for correct in known}) > 1:
            return None
        return np.stack(known)

    def row_values(self) -> Floats | None:
        """Return the values of all validation rows whose mean is each run's score, float64 [S, N]; see `row_values`.

        None if the metric has none, or a run of an earlier version does not say what it predicted.
        """
        name = score_name(self.trial.metric)
        if name == "accuracy":
            correct = self.correct()
            return None if correct is None else correct.astype(np.float64)
        found = []
        for run in self.runs:
            part = run.final_metrics.get("validation")
            rows = None if part is None else part.row_predictions()
            positive = 1 if run.worker.positive_class is None else run.worker.positive_class
            found.append(None if rows is None else row_values.row_values(rows, name, positive))
        known = [values for values in found if values is not None]
        if len(known) < len(found) or len({len(values) for values in known}) > 1:
            return None
        return np.stack(known)

    def median_run(self) -> TrialRecord:
        """Return the run with the median score (of two the lower): its model is kept, whatever the test set says."""
        ordered = sorted(self.runs, key=lambda run: (self.sign * (run.score or 0.0), run.index))
        return ordered[(len(ordered) - 1) // 2]


@dataclass(frozen=True)
class Candidate:
    """A confirmed trial beside the one with the best mean."""

    confirmed: Confirmed
    interval: Interval | None  # of its mean
    p: float | None = (
        None  # that the two are equally good by the metric, adjusted for all comparisons; None if not compared
    )

    out: bool = False  # it was clearly behind before all its runs were made, and got no more

    @property
    def tied(self) -> bool | None:
        """True if a test over seeds and rows cannot tell the two apart; None if they were not compared."""
        return None if self.p is None else self.p > 1 - LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        return {
            "trial": self.confirmed.trial.number,
            "search": self.confirmed.trial.score,
            "mean": self.confirmed.mean,
            "interval": self.interval,
            "runs": len(self.confirmed.runs),
            "parameters": self.confirmed.parameters,
            "p": self.p,
            "tied": self.tied,
            "out": self.out,
        }


def compared(confirmed: Sequence[Confirmed], out: Container[int] = ()) -> tuple[Candidate, ...]:
    """Compare every candidate with the best one, the first, where both ran the same seeds on the same rows.

    Args:
        out: the numbers of the trials that got no more runs, as they were clearly behind.
    """
    best = confirmed[0].row_values()
    others = {}
    for one in confirmed[1:]:
        values = one.row_values()
        same_seeds = [run.index for run in one.runs] == [run.index for run in confirmed[0].runs]
        if (
            best is not None
            and values is not None
            and same_seeds
            and one.trial.number not in out
            and values.shape == best.shape
        ):
            others[one.trial.number] = values
    ties = intervals.ties(best, list(others.values())) if best is not None else []
    p = {number: tie.adjusted for number, tie in zip(others, ties, strict=True)}
    return tuple(Candidate(one, one.interval(), p.get(number := one.trial.number), number in out) for one in confirmed)


def bounded(interval: Interval | None, name: str) -> Interval | None:
    """Return the interval within the bounds of the metric `name`."""
    low, high = row_intervals.bounds(name)
    return interval and Interval(max(interval.low, low), min(interval.high, high))
