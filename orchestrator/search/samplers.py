"""Optuna studies that follow the journal. Needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.record.ranking import direction
from orchestrator.record.state import Event, TrialRecord
from search_spaces.grid import Grid
from search_spaces.space import Distribution, SearchSpace
from trainables.epoch_metrics import better
from trainables.seeds import seed_for

STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # all others, and duplicates: FAIL


_NOT_ASKED = RandomSampler(seed=0)  # stands where values are given


class SpaceTPE(TPESampler):
    """TPE that knows its space, where Optuna would look for it in all trials so far, a third of a proposal's time.

    Fields without a condition are drawn together, from all trials. One with a condition is drawn by itself, from the
    trials that had it: drawn together, only trials that had all fields would count.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed)
        self._known: dict[str, BaseDistribution] = {
            name: d
            for name, d in sorted(space.distributions.items())
            if not d.single() and name not in space.conditions
        }

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._known


class JournalStudy:
    """An Optuna study of one arm that is told what the journal says, event by event, live and on replay alike.

    Proposal n comes from a sampler seeded by (seed, n), so a study that has seen the same events proposes the same.
    """

    def __init__(self, space: SearchSpace, sampler: str, seed: int, arm: str = "") -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._order = space.order()
        self._arm = arm
        self._sampler = sampler
        self._seed = seed
        self._grid = Grid(space, seed) if sampler == "grid" else None
        self.study = optuna.create_study(direction=direction_of(space))
        self._trials: dict[int, Trial] = {}  # those that have not ended
        self._asked = -1  # the newest proposal
        self._best: dict[int, float | None] = {}  # so far, in the metric's own sign; absent or None while undefined

    def propose(self, number: int, index: int) -> dict[str, Any] | None:
        """The searched values of trial `number`, the arm's next one, at `index` in it; None if a grid has no more."""
        if self._grid is not None:
            if index >= len(self._grid):
                return None
            self.study.enqueue_trial(self._grid[index])
        return self._ask(number, self._make_sampler(number)).params

    def observe(self, event: Event) -> None:
        """Tell the study what a journal event means to it."""
        number, kind = event["trial"], event["event"]
        if kind == "trial_proposed":
            mine = event.get("arm", "") == self._arm and not event.get("final")
            if mine and number > self._asked:  # replayed: it was not asked here
                self.study.enqueue_trial(event["params"])
                self._ask(number, _NOT_ASKED)
        elif number not in self._trials:
            return
        elif kind == "trial_epoch":
            self._report(number, event["metrics"]["epoch"], event["metrics"][self._space.base.metric])
        elif kind == "trial_ended":
            self._tell(number, event["status"], event["stop_reason"])

    def _make_sampler(self, number: int) -> BaseSampler:
        seed = seed_for(self._seed, "proposal", number) % 2**32
        return SpaceTPE(self._space, seed) if self._sampler == "tpe" else RandomSampler(seed=seed)

    def _ask(self, number: int, sampler: BaseSampler) -> Trial:
        self.study.sampler = sampler
        self._asked = number
        trial = self._trials[number] = self.study.ask()
        drawn: dict[str, Any] = {}
        for name in self._order:
            if self._space.active(name, drawn):
                drawn[name] = _suggest(trial, name, self._space.distributions[name])
        return trial

    def _report(self, number: int, epoch: int, value: float | None) -> None:
        """Report the score at `epoch`, as ASHA and the ranking have it. Undefined: nothing."""
        if self._space.base.selection == "last" or better(self._space.base.metric, value, self._best.get(number)):
            self._best[number] = value
        best = self._best.get(number)
        if best is not None:
            self._trials[number].report(best, epoch)

    def _tell(self, number: int, status: str, reason: str) -> None:
        """Tell the end of a trial."""
        state = _state_at_end(status, reason, self._best.get(number))
        value = self._best.get(number) if state == TrialState.COMPLETE else None
        self.study.tell(self._trials.pop(number), value, state=state)


def direction_of(space: SearchSpace) -> StudyDirection:
    """What a study of `space` does to its metric."""
    return StudyDirection.MAXIMIZE if direction(space.base.metric) > 0 else StudyDirection.MINIMIZE


def frozen(trial: TrialRecord, space: SearchSpace, facts: Mapping[str, Any]) -> FrozenTrial:
    """A searched trial that has ended, as `JournalStudy` was told it, for a storage; `facts` are user attributes."""
    assert trial.end is not None  # noqa: S101 - the caller has seen it
    state = _state_at_end(trial.status, trial.end["stop_reason"], trial.score)
    found = optuna.trial.create_trial(
        state=state,
        value=trial.score if state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions={name: space.distributions[name] for name in trial.params},
        user_attrs=dict(facts),
        intermediate_values={one["epoch"]: one["score"] for one in trial.epochs if one["score"] is not None},
    )
    began, ended = trial.started_at or trial.proposed_at, trial.ended_at or trial.proposed_at
    found.datetime_start, found.datetime_complete = _local(began), _local(ended)
    return found


def _local(seconds: float) -> datetime:
    """Seconds since 1970 as Optuna has times: local, without a zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().replace(tzinfo=None)


def _state_at_end(status: str, reason: str, score: float | None) -> TrialState:
    """FAIL also for a duplicate, whose first run says more, and for a full run without a score."""
    state = STATES.get(status, TrialState.FAIL) if reason != "duplicate" else TrialState.FAIL
    return TrialState.FAIL if state == TrialState.COMPLETE and score is None else state


def _suggest(trial: Trial, name: str, distribution: Distribution) -> Any:
    """The value that is drawn for field `name`."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
