"""Limits of a search beside its number of trials and its time: epochs, GPU-hours, a score to reach, patience.

What a limit closes is the search; the runs after it follow, and of epochs and GPU-hours enough is kept for them. The
decision is an event, so a replay knows when the search was closed, and need not know why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.record.events import Event, SearchClosed, TrialEnded, TrialEpoch
from orchestrator.record.journal import Journal
from orchestrator.record.ranking import direction, gain, is_feasible, is_ranked
from orchestrator.record.state import TrialRecord
from orchestrator.search.trial_queue import TrialQueue


@dataclass(frozen=True)
class Limits:
    """The limits that a command gives; None: there is no such one."""

    epochs: int | None = None  # of all runs of the sweep together
    gpu_hours: float | None = None  # of training, evaluation and features on GPUs
    target: float | None = None  # a score that ends the search when a trial reaches it
    patience: int | None = None  # trials after the best one that end without a better score


class LimitWatch:
    """Follows the journal, and closes the search at the first limit that is reached."""

    def __init__(self, journal: Journal, queue: TrialQueue, limits: Limits, slot_gpus: float) -> None:
        """Take the sweep as it is so far; `slot_gpus` is the share of a GPU that a trial has."""
        self._journal, self._queue, self._limits, self._slot_gpus = journal, queue, limits, slot_gpus
        trials = list(journal.state.trials.values())
        self._first = journal.state.next_n
        self._epochs = sum(len(trial.epochs) for trial in trials)
        self._worked_s = 0.0 if limits.gpu_hours is None else sum(trial.worked_s for trial in trials)
        self._best: TrialRecord | None = None
        self._since = 0  # searched trials after the best one that have ended
        for trial in trials:
            self._count(trial)

    def observe(self, event: Event) -> None:
        """Follow one journal event."""
        if event.n < self._first or not isinstance(event, TrialEpoch | TrialEnded):
            return
        trial = self._journal.state.trials.get(event.trial)
        if trial is None:
            return
        if isinstance(event, TrialEpoch):
            self._epochs += 1
            self._worked_s += (event.metrics.get("train_s") or 0.0) + (event.metrics.get("eval_s") or 0.0)
        self._count(trial)

    def _count(self, trial: TrialRecord) -> None:
        """Note a trial that may be the best one now, or that has ended without being that."""
        if trial.final:
            return
        state = self._journal.state
        counts = is_ranked(trial) and is_feasible(state, trial)
        if counts and (self._best is None or _gain(trial) > _gain(self._best)):
            self._best = trial
            later = (other for other in state.trials.values() if other.index > trial.index)
            self._since = sum(other.end is not None and not other.final for other in later)
        elif trial.end is not None and self._best is not None and trial.index > self._best.index:
            self._since += 1

    def check(self) -> None:
        """Close the search if a limit is reached, unless it is closed or over."""
        state = self._journal.state
        if state.closed is not None or not (self._queue.searches(state) or state.paused):
            return
        if (reason := self._reached()) is not None:
            self._journal.append(SearchClosed(0.0, 0.0, self._queue.owed(state), reason))

    def _reached(self) -> str | None:
        """Return the name of the limit that is reached; None if none is."""
        limits, owed = self._limits, self._queue.owed(self._journal.state)
        longest = max(space.base.max_epochs for space in self._queue.arms.values())
        if limits.epochs is not None and self._epochs + owed * longest >= limits.epochs:
            return "epoch_budget"
        if limits.gpu_hours is not None:
            epoch_s = self._worked_s / max(self._epochs, 1)
            hours = (self._worked_s + owed * longest * epoch_s) * self._slot_gpus / 3600
            if self._epochs and hours >= limits.gpu_hours:
                return "gpu_hours"
        best = self._best
        if best is None:
            return None
        if limits.target is not None and _gain(best) >= gain(limits.target, direction(best.metric)):
            return "target_score"
        return "patience_trials" if self._since >= (limits.patience or math.inf) else None


def _gain(trial: TrialRecord) -> float:
    return gain(trial.score, direction(trial.metric))
