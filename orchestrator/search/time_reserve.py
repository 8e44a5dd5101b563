"""The time that a search leaves for the runs after it, so that a time budget ends with a confirmed winner.

The clock decides, so its decision is an event: a replay knows when the search was closed, and need not know why.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.record.events import SearchClosed
from orchestrator.record.journal import Journal
from orchestrator.record.ranking import best_trials
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search.trial_queue import TrialQueue

MOST = 1 / 3  # of the time budget that is kept, at most
RUN_S = 1.0  # of a run beside its epochs
CHECK_S = 0.5  # between two looks at the clock
END_S = 10.0  # for the test set, the bundle and the report


@dataclass(frozen=True)
class Budget:
    """The time of a command: its seconds, and when they are over, as the clock has it."""

    seconds: float = math.inf
    deadline: float = math.inf
    clock: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.deadline - self.clock()

    @property
    def most_kept(self) -> float:
        """The seconds that are kept for the runs after the search, at most."""
        return MOST * self.seconds


class TimeReserve:
    """Closes the search when what is left of the budget is needed for the runs that are owed after it."""

    def __init__(
        self,
        journal: Journal,
        queue: TrialQueue,
        budget: Budget,
        slots: Callable[[], int],
    ) -> None:
        """Take the queue of all trials, and what returns the number of slots."""
        self._journal = journal
        self._queue = queue
        self._budget = budget
        self._slots = slots
        self._checked_at = -math.inf

    def check(self) -> None:
        """Close the search if it is time, unless there is nothing to confirm yet, or nothing is searched any more."""
        state, budget, now = self._journal.state, self._budget, self._budget.clock()
        if math.isinf(budget.deadline) or budget.left > budget.most_kept or now - self._checked_at < CHECK_S:
            return
        self._checked_at = now
        if not self._queue.is_searching(state) or not (owed := self._queue.owed(state)):
            return
        needed = needed_s(state, self._queue, self._slots())
        if needed is None or budget.left > max(needed, CHECK_S):
            return
        self._journal.append(SearchClosed(round(budget.left, 1), round(needed, 1), owed))


def needed_s(state: SweepState, queue: TrialQueue, slots: int) -> float | None:
    """Return the seconds that the runs after the search will take, by the epochs of the trials that are best so far.

    A refit sees more rows than the run that it repeats. Searched trials that run meanwhile end with their epoch.

    Returns:
        None if no trial has a score yet.
    """
    best = [trial for arm in queue.arms for trial in best_trials(state, arm, queue.best) if trial.epochs]
    if not best:
        return None
    run_s = statistics.fmean(map(_run_s, best))
    finals = max(queue.owed(state) - queue.refit_runs, 0)
    abreast = max(slots, 1)
    seconds = math.ceil(finals / abreast) * run_s
    if queue.refit_runs:
        seconds += math.ceil(queue.refit_runs / abreast) * max(_run_s(trial) * _growth(state, trial) for trial in best)
    return seconds + max(map(epoch_s, best)) + END_S


def epoch_s(trial: TrialRecord) -> float:
    """Return the mean seconds of an epoch of a trial that has some."""
    return (trial.total("train_s") + trial.total("eval_s")) / len(trial.epochs)


def _run_s(trial: TrialRecord) -> float:
    """Return the seconds of a full run with a trial's settings."""
    return epoch_s(trial) * int(trial.config["max_epochs"]) + RUN_S


def _growth(state: SweepState, trial: TrialRecord) -> float:
    """Return how many times as many rows a refit trains on as a trial did; 1 where it is not known."""
    rows = state.spec.split
    whole = rows.get("search_rows") or rows.get("pool_rows", 0) + rows.get("validation_rows", 0)
    return max(whole / trial.worker.train_rows, 1.0) if whole and trial.worker.train_rows else 1.0
