"""The trials that a sweep still has to run: searched ones of every arm in turn, each arm's final runs, then refits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.record.events import TrialProposed
from orchestrator.record.ranking import best_trials, rank_key
from orchestrator.record.state import ArmState, SweepState, TrialRecord
from search_spaces import starts
from search_spaces.space import SearchSpace

NEAR_TOP = 10  # best trials among which the start point is worth a confirmation


@dataclass(frozen=True)
class NextTrial:
    """The next trial. `params` are None if the arm's sampler is to propose them; `index` is as in `TrialRecord`.

    `stop_epoch` is that of a refit, and None of all others.
    """

    arm: str
    index: int
    params: dict[str, Any] | None = None
    confirms: int | None = None
    stop_epoch: int | None = None

    @property
    def refit(self) -> bool:
        """True if the confirmed winner is trained once more, on all rows."""
        return self.stop_epoch is not None

    @property
    def final(self) -> bool:
        """True of a final run, with the settings of the arm or of a trial that was searched."""
        return self.params is not None

    def proposal(self, number: int, params: dict[str, Any], config: dict[str, Any], redraws: int = 0) -> TrialProposed:
        """Return the event of its proposal as trial `number`, with these searched values and this configuration."""
        placed = self.arm, self.final, self.index, self.confirms, self.refit
        return TrialProposed(number, params, config, *placed, redraws)


@dataclass(frozen=True)
class TrialQueue:
    """The arms, how many trials are searched in each, and how many of the best are run again, with how many seeds.

    `refits` returns those of the winner that a state has, made or not; `out` the trials that are so far behind others
    that they get no more final runs.
    """

    arms: Mapping[str, SearchSpace]
    trials: int  # in every arm that searches any field
    seeds: int = 0  # of final runs; 0: there are none
    best: int = 1  # trials of an arm that have final runs
    confirm_start: bool = False  # and so has the trial at the start point, if it is among the best `NEAR_TOP`
    refit_runs: int = 0
    open_ended: bool = False  # `trials` are an estimate: there will be as many as fit into the time
    refits: Callable[[SweepState], Sequence[NextTrial]] = lambda state: ()
    out: Callable[[SweepState], Collection[int]] = lambda state: ()

    def next(self, state: SweepState) -> NextTrial | None:
        """Return the next trial that `state` lacks; None if there is none, or none until a running trial has ended."""
        if searching := self.searches(state):
            arm = min(searching, key=lambda name: state.arm(name).proposed)
            return NextTrial(arm, state.arm(arm).next_index)
        missing = [due for name in self.arms if self._ready(name, state) for due in self._finals(name, state)]
        if missing or not self.refit_runs or state.running or state.waiting:
            return min(missing, key=lambda due: due.index, default=None)
        made = state.arm("").refits
        return next((due for due in self.refits(state) if (due.confirms, due.index) not in made), None)

    def searches(self, state: SweepState) -> list[str]:
        """Return the arms in which trials are still to be proposed."""
        return [name for name in self.arms if self._searched(name) and self._lacks_trials(state, state.arm(name))]

    def is_searching(self, state: SweepState) -> bool:
        """Return whether the search goes on, and any of its trials is still to be proposed or has not ended."""
        if state.closed is not None:
            return False
        live = (*state.paused, *state.running, *state.waiting)
        return bool(self.searches(state)) or any(not state.trials[number].final for number in live)

    def owed(self, state: SweepState) -> int:
        """Return how many runs after the search are still to be made, if the trials that are best now stay that."""
        missing = confirmed = 0
        for name in self.arms:
            if self._searched(name) and self.seeds:
                known = [trial.number for trial in self.candidates(state, name)]
                confirmed += sum(run.refit and run.confirms in known for run in state.trials.values())
                missing += self.seeds * max(self.best - len(known), 0)
            missing += len(self._finals(name, state))
        return missing + max(self.refit_runs - confirmed, 0)

    def most_owed(self) -> int:
        """Return how many runs there are after the search, at most."""
        return self.total() - self.searched() + self.perhaps()

    def perhaps(self) -> int:
        """Return how many runs the trial at the start point gets, if it is among the best and none of the very best."""
        return self.seeds if self.confirm_start and (self.open_ended or self.trials > self.best) else 0

    def searched(self) -> int:
        """Return how many trials are searched, in all arms."""
        return self.trials * sum(map(self._searched, self.arms))

    def total(self) -> int:
        """Return how many trials there will be, if every arm's search has trials to run again."""
        runs = self.seeds * sum(self.best if self._searched(name) else 1 for name in self.arms)
        return self.searched() + runs + self.refit_runs

    def _finals(self, arm: str, state: SweepState) -> list[NextTrial]:
        """Return the final runs that `arm` lacks."""
        if self.seeds == 0:
            return []
        settings: list[tuple[dict[str, Any], int | None]] = [({}, None)]
        if self._searched(arm):
            candidates, out = self.candidates(state, arm), self.out(state)
            settings = [(trial.params, trial.number) for trial in candidates if trial.number not in out]
        return [
            NextTrial(arm, index, params, number)
            for index in range(self.seeds)
            for params, number in settings
            if (number, index) not in state.arm(arm).finals
        ]

    def candidates(self, state: SweepState, arm: str = "") -> list[TrialRecord]:
        """Return the searched trials of an arm that have final runs: the best ones and, if it is among the best
        `NEAR_TOP`, the one that the search began with at its space's start point.
        """
        best = best_trials(state, arm, self.best)
        start = self.start(state, arm) if self.confirm_start else None
        if start is None or start in best or start not in best_trials(state, arm, NEAR_TOP):
            return best
        return [*best, start]

    def start(self, state: SweepState, arm: str = "") -> TrialRecord | None:
        """Return the best trial of an arm that has the settings of its space's first start point: of several nets each
        began with it. None if there is none.
        """
        begun = self.arms[arm].starts[:1]
        trials = (trial for trial in state.trials.values() if trial.arm == arm and not trial.final)
        at_start = [trial for trial in trials if any(starts.is_at(trial.params, start) for start in begun)]
        return min(at_start, key=rank_key(state), default=None)

    def _lacks_trials(self, state: SweepState, arm: ArmState) -> bool:
        """Return whether a searched arm has fewer trials than were asked for, points for more, and time."""
        return (self.open_ended or arm.proposed < self.trials) and not arm.exhausted and state.closed is None

    def _searched(self, arm: str) -> bool:
        """Return whether fields are searched in `arm`; the one arm without a name is always searched."""
        return not arm or bool(self.arms[arm].distributions)

    def _ready(self, arm: str, state: SweepState) -> bool:
        """Return whether the final runs of `arm` may begin."""
        return not self._searched(arm) or state.arm(arm).finished == state.arm(arm).proposed
