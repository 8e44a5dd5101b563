"""Which trial is better, and what a sweep came to: read off the folded journal."""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from orchestrator.record.state import SweepState, TrialRecord
from trainables.epoch_metrics import METRICS

UNRANKED = ("diverged", "failed")


def ranked(state: SweepState) -> list[TrialRecord]:
    """Trials by score, the best first; those that diverged, failed or have no score come last, by number."""
    return sorted(state.trials.values(), key=rank_key)


def rank_key(trial: TrialRecord) -> tuple[bool, float, int]:
    """Sorts trials as the leaderboard has them."""
    if not is_ranked(trial):
        return True, 0.0, trial.number
    return False, -gain(trial.score, direction(trial.metric)), trial.number


def best_trial(state: SweepState) -> TrialRecord | None:
    """The first of the leaderboard, if any trial has a place."""
    first = min(state.trials.values(), key=rank_key, default=None)
    return first if first is not None and is_ranked(first) else None


def best_trials(state: SweepState, arm: str, count: int) -> list[TrialRecord]:
    """The first `count` of an arm's part of the leaderboard, or as many as have a place."""
    trials = (trial for trial in state.trials.values() if trial.arm == arm and is_ranked(trial))
    return heapq.nsmallest(count, trials, key=rank_key)


def count_statuses(state: SweepState) -> dict[str, int]:
    """How many trials have each status that occurs; runs that confirm another do not count."""
    return dict(Counter(trial.status for trial in list(state.trials.values()) if trial.confirms is None))


def is_ranked(trial: TrialRecord) -> bool:
    """Whether the trial has a place: it has a score, neither diverged nor failed, and repeats no other trial."""
    return trial.score is not None and trial.status not in UNRANKED and trial.confirms is None


def slot_use(state: SweepState) -> float | None:
    """Share of the slots' time, from the first proposal to the last end, spent in training steps and evaluation."""
    working = sum(trial.total("train_s") + trial.total("eval_s") for trial in state.trials.values())
    available = state.active_s * (state.spec.slots or 0)
    return working / available if available else None


LEAST = -sys.float_info.max / 2  # half, so that differences stay finite


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is."""
    return 1 if METRICS[metric] == "max" else -1


def gain(score: float | None, sign: int) -> float:
    """The score as a number of which more is better; an undefined score is below all others."""
    return LEAST if score is None else sign * score


def gains(scores: Iterable[float | None], sign: int) -> NDArray[np.float64]:
    """As `gain`, of many at once."""
    found = sign * np.array(list(scores), dtype=np.float64)  # None: NaN
    return np.where(np.isnan(found), LEAST, found)
