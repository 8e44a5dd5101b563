"""Refits: the confirmed winner is trained once more, on pool and validation set together.

A refit has the winner's settings and the seed of one of its confirmation runs, its twin, but all rows that the sweep
may see, whatever the winner's train fraction was. No rows are left to score it on: it has no score, and its twin's are
what is known of it before the test set is opened. It ends at the epoch that confirmation found best, the median of the
winner's runs, on the schedule that they had; `benchmarks/refit.py` measures what that gains. The test set decides
nothing of this.
"""

from __future__ import annotations

import dataclasses
import statistics
from functools import partial

from orchestrator.assessment.confirmation import Confirmed, winner_of
from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState
from orchestrator.search.trial_queue import NextTrial, TrialQueue


def queue(planned: Plan) -> TrialQueue:
    """Return the queue of all trials of a sweep, the refits of its winner among them."""
    return dataclasses.replace(planned.queue(), refits=partial(due, planned))


def due(planned: Plan, state: SweepState) -> list[NextTrial]:
    """Return the refits of the confirmed winner, made or not; none before all confirmation runs have ended."""
    winner = winner_of(state, planned) if planned.refit else None
    if winner is None:
        return []
    runs = [winner.median_run()] if planned.refits == 1 else winner.runs
    params, number = winner.trial.params, winner.trial.number
    return [NextTrial(winner.trial.arm, run.index, params, number, stop_epoch(winner)) for run in runs]


def stop_epoch(winner: Confirmed) -> int:
    """Return the median of the epochs at which the winner's runs were best; of two in the middle the later one."""
    return statistics.median_high(run.best_epoch or run.last_epoch for run in winner.runs)
