"""Confirmation as a race: a candidate that is clearly behind another one on the seeds that both have run gets no more.

Candidates run seed by seed. One is out once its mean is more than two standard errors of the paired difference below
that of another one, over the seeds that both have; with a single seed the error is that over rows. That follows from
the journal alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.assessment import intervals
from orchestrator.assessment.candidates import Confirmed
from orchestrator.record.state import SweepState

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan  # loads Optuna, which a bundle's reader may not have

FAR = 2.0  # standard errors


@dataclass
class Race:
    """The race of a sweep's candidates."""

    planned: Plan
    _known: tuple[tuple[int, ...], frozenset[int]] = field(default=((), frozenset()), init=False)

    def out(self, state: SweepState) -> Collection[int]:
        """Return the candidates, by their trial's number, that get no more runs."""
        if not self.planned.confirm or self.planned.recipe is not None:
            return ()
        ended = tuple(sorted(run.number for run in state.trials.values() if run.final and run.end is not None))
        if ended != self._known[0]:  # it looks at every row of every run
            self._known = ended, frozenset(self._decide(state))
        return self._known[1]

    def _decide(self, state: SweepState) -> Collection[int]:
        there = [confirmed_by(state, trial.number) for trial in self.planned.queue().candidates(state)]
        known = [one for one in there if one is not None]
        return {one.trial.number for one in known if any(is_behind(one, other) for other in known)}


def confirmed_by(state: SweepState, number: int) -> Confirmed | None:
    """Return a searched trial with the runs that have confirmed it so far; None if there are none."""
    runs = [run for run in state.trials.values() if run.confirms == number and not run.refit]
    completed = [run for run in runs if run.status == "completed" and run.score is not None]
    if not completed:
        return None
    ordered = tuple(sorted(completed, key=lambda run: run.index))
    return Confirmed(state.trials[number], ordered, state.spec.split.get("folds", 1))


def is_behind(one: Confirmed, other: Confirmed) -> bool:
    """Return whether a candidate is clearly behind another one; False where what is known of rows does not suffice."""
    common = sorted({run.index for run in one.runs} & {run.index for run in other.runs})
    if not common:
        return False
    mine, theirs = one.on_seeds(common).row_values(), other.on_seeds(common).row_values()
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return False
    difference = one.sign * (theirs - mine)
    return float(difference.mean()) > FAR * intervals.standard_error(difference)
