"""The order of trials, and numbers of a whole sweep, computed from the folded journal."""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from orchestrator.record.aims import Constraint, broken, known_constraints
from orchestrator.record.state import SweepState, TrialRecord
from trainables.epoch_metrics import direction_of

UNRANKED = ("diverged", "failed")


def ranked(state: SweepState) -> list[TrialRecord]:
    """Return the trials by score, the best first, those that break a constraint after all that break none.

    Those that diverged, failed or have no score come last, by number.
    """
    return sorted(state.trials.values(), key=rank_key(state))


def rank_key(state: SweepState) -> Callable[[TrialRecord], tuple[int, float, int]]:
    """Return the key that sorts the trials of a sweep as the leaderboard has them."""
    bounds = constraints(state)

    def key(trial: TrialRecord) -> tuple[int, float, int]:
        if not is_ranked(trial):
            return 2, 0.0, trial.number
        return int(bool(broken(trial, bounds))), -gain(trial.score, direction(trial.metric)), trial.number

    return key


def constraints(state: SweepState) -> tuple[Constraint, ...]:
    """Return the constraints that the winner of a sweep must meet, as its plan has them."""
    return known_constraints(tuple(state.spec.plan.get("constraint") or ()))


def is_feasible(state: SweepState, trial: TrialRecord) -> bool:
    """Return whether a trial meets all constraints of its sweep, as far as it has run."""
    return not broken(trial, constraints(state))


def best_trial(state: SweepState) -> TrialRecord | None:
    """Return the first trial of the leaderboard; None if no trial is ranked."""
    first = min(state.trials.values(), key=rank_key(state), default=None)
    return first if first is not None and is_ranked(first) else None


def best_trials(state: SweepState, arm: str, count: int) -> list[TrialRecord]:
    """Return the first `count` trials of an arm's part of the leaderboard, or as many as are ranked.

    Those that break a constraint are among them only if there are no others.
    """
    trials = [trial for trial in state.trials.values() if trial.arm == arm and is_ranked(trial)]
    if bounds := constraints(state):
        trials = [trial for trial in trials if not broken(trial, bounds)] or trials
    return heapq.nsmallest(count, trials, key=rank_key(state))


def count_statuses(state: SweepState) -> dict[str, int]:
    """Count the trials of each status that occurs; confirmation runs do not count."""
    return dict(Counter(trial.status for trial in list(state.trials.values()) if trial.confirms is None))


def is_ranked(trial: TrialRecord) -> bool:
    """Return whether the trial has a rank: it has a score, neither diverged nor failed, and confirms no other trial."""
    return trial.score is not None and trial.status not in UNRANKED and trial.confirms is None


def slot_use(state: SweepState) -> float | None:
    """Return the share of the slots' time, from the first proposal to the last end, that was training, evaluation and
    the computation of features.
    """
    working = sum(trial.worked_s for trial in state.trials.values())
    available = state.supply.slot_s or state.active_s * (state.spec.slots or 0)
    return working / available if available else None


LEAST = -sys.float_info.max / 2  # half, so that differences stay finite


def direction(metric: str) -> int:
    """Return 1 for a metric of which more is better, -1 for one of which less is."""
    return 1 if direction_of(metric) == "max" else -1


def gain(score: float | None, sign: int) -> float:
    """Return the score as a number of which more is better; an undefined score is below all others."""
    return LEAST if score is None else sign * score


def gains(scores: Iterable[float | None], sign: int) -> NDArray[np.float64]:
    """Return `gain` of many scores at once."""
    found = sign * np.array(list(scores), dtype=np.float64)  # None: NaN
    return np.where(np.isnan(found), LEAST, found)
