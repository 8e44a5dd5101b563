"""Limits of a search beside its number of trials and its time: epochs, GPU-hours, a score to reach, patience.

What a limit closes is the search; the runs after it follow, and of epochs and GPU-hours enough is kept for them. The
decision is an event, so a replay knows when the search was closed, and need not know why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.record.events import Event, SearchClosed, TrialEpoch, TrialFeatures
from orchestrator.record.journal import Journal
from orchestrator.record.ranking import direction, gain, is_feasible, is_ranked, rank_key
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.record.trial_record import is_alone
from orchestrator.search.trial_queue import TrialQueue


@dataclass(frozen=True)
class Limits:
    """The limits that a command gives; None: there is no such one."""

    epochs: int | None = None  # of all runs of the sweep together
    gpu_hours: float | None = None  # of training, evaluation and features on GPUs
    target: float | None = None  # a score that ends the search when a trial reaches it
    patience: int | None = None  # trials after the best one that end without a better score

    def describe(self) -> list[str]:
        """Describe what ends the search, a text for each limit."""
        parts = {
            "{} epochs in all": self.epochs,
            "{:g} GPU-hours in all": self.gpu_hours,
            "a score of {:g}": self.target,
            "{} trials without a better score": self.patience,
        }
        return [text.format(value) for text, value in parts.items() if value is not None]


class LimitWatch:
    """Follows the journal, and closes the search at the first limit that is reached."""

    def __init__(self, journal: Journal, queue: TrialQueue, limits: Limits, slot_gpus: float) -> None:
        """Take the sweep as it is so far; `slot_gpus` is the share of a GPU that a trial has, unless it has its own."""
        self._journal, self._queue, self._limits, self._slot_gpus = journal, queue, limits, slot_gpus
        trials = list(journal.state.trials.values())
        self._first = journal.state.next_n
        self._epochs = sum(len(trial.epochs) for trial in trials)
        self._gpu_s = 0.0 if limits.gpu_hours is None else sum(trial.worked_s * self._gpus(trial) for trial in trials)

    def observe(self, event: Event) -> None:
        """Follow one journal event."""
        if event.n < self._first or not isinstance(event, TrialEpoch | TrialFeatures):
            return
        if isinstance(event, TrialEpoch):
            self._epochs += 1
            seconds = (event.metrics.get("train_s") or 0.0) + (event.metrics.get("eval_s") or 0.0)
        else:
            seconds = event.seconds
        self._gpu_s += seconds * self._gpus(self._journal.state.trials[event.trial])

    def _gpus(self, trial: TrialRecord) -> float:
        """Return the share of a GPU that a trial has in its latest attempt, which counts for all of them."""
        if is_alone(self._journal.state.trials, trial):
            return 1.0
        return self._slot_gpus if trial.gpus is None else trial.gpus

    def check(self) -> None:
        """Close the search if a limit is reached, unless it is closed or over."""
        state = self._journal.state
        if self._queue.is_searching(state) and (reason := self._reached()) is not None:
            self._journal.append(SearchClosed(0.0, 0.0, self._queue.owed(state), reason))

    def _reached(self) -> str | None:
        """Return the name of the limit that is reached; None if none is."""
        limits, state = self._limits, self._journal.state
        if self._spent(self._queue.most_owed()) and (spent := self._spent(self._queue.owed(state))):
            return spent  # the exact number takes long to count
        best = best_searched(state) if (limits.target, limits.patience) != (None, None) else None
        if best is None:
            return None
        sign = direction(best.metric)
        if limits.target is not None and gain(best.score, sign) >= gain(limits.target, sign):
            return "target_score"
        return "patience_trials" if ended_after(state, best) >= (limits.patience or math.inf) else None

    def _spent(self, owed: int) -> str | None:
        """Return the name of the limit of work that is reached if so many runs are owed; None if none is."""
        limits, longest = self._limits, max(space.base.max_epochs for space in self._queue.arms.values())
        if limits.epochs is not None and self._epochs + owed * longest >= limits.epochs:
            return "epoch_budget"
        hours = self._gpu_s * (1 + owed * longest / max(self._epochs, 1)) / 3600
        reached = limits.gpu_hours is not None and self._epochs and hours >= limits.gpu_hours
        return "gpu_hours" if reached else None


def best_searched(state: SweepState) -> TrialRecord | None:
    """Return the searched trial that may win as things stand; None if none has a score and meets all constraints."""
    searched = (trial for trial in state.trials.values() if not trial.final and is_ranked(trial))
    best = min(searched, key=rank_key(state), default=None)
    return best if best is not None and is_feasible(state, best) else None


def ended_after(state: SweepState, best: TrialRecord) -> int:
    """Return how many searched trials after the best one have ended."""
    later = (trial for trial in state.trials.values() if trial.index > best.index and not trial.final)
    return sum(trial.end is not None for trial in later)
