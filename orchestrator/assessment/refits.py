"""Refits: the confirmed winner is trained once more, on pool and validation set together.

A refit has the winner's settings and the seed of one of its confirmation runs, its twin, but all rows that the sweep
may see, whatever the winner's train fraction was. No rows are left to score it on: it has no score, and its twin's are
what is known of it before the test set is opened. It ends where the winner's runs ended, in the median, if their
learning rate fell to zero: ending it where they were best, while the rate was high, was worse by 1.0 ± 0.8 points over
20 sweeps of digits (`benchmarks/refit.py`). With any other schedule it ends at the epoch that was best. The test set
decides nothing of this.
"""

from __future__ import annotations

import dataclasses
import statistics
from functools import partial

from orchestrator.assessment.candidates import Confirmed
from orchestrator.assessment.confirmation import winner_of
from orchestrator.assessment.racing import Race
from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState
from orchestrator.search.trial_queue import NextTrial, TrialQueue

FALLING = ("cosine", "one_cycle")
"""Schedules at whose end the learning rate is zero."""


def queue(planned: Plan) -> TrialQueue:
    """Return the queue of all trials of a sweep: its confirmation is a race, and the winner is refitted."""
    return dataclasses.replace(planned.queue(), refits=partial(due, planned), out=Race(planned).out)


def due(planned: Plan, state: SweepState) -> list[NextTrial]:
    """Return the refits of the confirmed winner, made or not; none before all confirmation runs have ended."""
    winner = winner_of(state, planned) if planned.refit else None
    if winner is None:
        return []
    runs = [winner.median_run()] if planned.refits == 1 else winner.runs
    params, number = winner.trial.params, winner.trial.number
    return [NextTrial(winner.trial.arm, run.index, params, number, stop_epoch(winner)) for run in runs]


def stop_epoch(winner: Confirmed) -> int:
    """Return the median of the epochs where the winner's runs ended or were best; of two in the middle, the later."""
    to_the_end = winner.trial.config["schedule"] in FALLING
    return statistics.median_high(
        run.last_epoch if to_the_end else run.best_epoch or run.last_epoch for run in winner.runs
    )
