"""Who proposes: Optuna studies that follow the journal, and the Ray `Searcher` around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from orchestrator.agenda import Agenda, Due
from orchestrator.journal import Journal
from orchestrator.scheduler import direction
from orchestrator.state import Event, SweepState
from search_spaces.grid import Grid
from search_spaces.space import SearchSpace
from trainables.config import TrialConfig, better, form_key
from trainables.seeds import seed_for

STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # all others, and duplicates: FAIL


_NOT_ASKED = RandomSampler(seed=0)  # stands where values are given


class SpaceTPE(TPESampler):
    """TPE that knows its space, where Optuna would look for it in all trials so far, a third of a proposal's time."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed)
        self._known: dict[str, BaseDistribution] = {
            name: d for name, d in sorted(space.distributions.items()) if not d.single()
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
        self._arm = arm
        self._sampler = sampler
        self._seed = seed
        self._grid = Grid(space, seed) if sampler == "grid" else None
        self.study = optuna.create_study(direction="maximize" if direction(space.base.metric) > 0 else "minimize")
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
        self._trials[number] = self.study.ask(fixed_distributions=dict(self._space.distributions))
        return self._trials[number]

    def _report(self, number: int, epoch: int, value: float | None) -> None:
        """Report the score at `epoch`, as ASHA and the ranking have it. Undefined: nothing."""
        if self._space.base.selection == "last" or better(self._space.base.metric, value, self._best.get(number)):
            self._best[number] = value
        best = self._best.get(number)
        if best is not None:
            self._trials[number].report(best, epoch)

    def _tell(self, number: int, status: str, reason: str) -> None:
        """Tell the end of a trial: FAIL for a duplicate, whose first run says more, and a full run without a score."""
        state = STATES.get(status, TrialState.FAIL) if reason != "duplicate" else TrialState.FAIL
        value = self._best.get(number) if state == TrialState.COMPLETE else None
        if state == TrialState.COMPLETE and value is None:
            state = TrialState.FAIL
        self.study.tell(self._trials.pop(number), value, state=state)


class JournalSearcher(Searcher):
    """Gives Ray Tune the trials that the folded journal says are due, and new ones while there is room.

    A trial whose worker died waits in the journal's state; it is suggested again as its next attempt, under whatever
    new id Ray gives it.
    """

    def __init__(
        self,
        journal: Journal,
        agenda: Agenda,
        studies: Mapping[str, JournalStudy],
        configure: Callable[[int, Due, dict[str, Any]], TrialConfig],
        slots: Callable[[], int],
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            studies: of every arm in which anything is searched.
            configure: makes the whole configuration of a trial from its number, what it is for and its searched values.
            slots: how many trials may run now.
            ending: whether the sweep should end: with no slot left, Tune waits here, and asks nobody else.
        """
        super().__init__(metric=None, mode=None)
        self._journal = journal
        self._agenda = agenda
        self._studies = studies
        self._configure = configure
        self._slots = slots
        self._ending = ending
        self.exhausted = False  # nothing runs, nothing waits, and no more is to be proposed
        self._tried = {  # arms with configurations but for the seed
            _tried(trial.arm, trial.config) for trial in journal.state.trials.values() if not trial.final
        }

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        state = self._journal.state
        if self._ending():
            return str(Searcher.FINISHED)
        if len(state.running) >= self._slots():
            return None
        due = state.waiting[0] if state.waiting else None
        if due is not None:
            self._journal.append(attempt_of(due, state.trials[due].attempt + 1))
        else:
            due = self._propose(state)
        if due is None:
            self.exhausted = not state.running
            return str(Searcher.FINISHED) if self.exhausted else None
        trial = state.trials[due]
        return {
            "trial": due,
            "attempt": trial.attempt,
            "config": json.dumps(
                trial.config
            ),  # text: Tune copies and encodes all that it is given, many times a trial
            "form": state.forms.get(form_key(trial.config)),
            "final": trial.final,
        }

    def _propose(self, state: SweepState) -> int | None:
        """Put the next trial, with its first attempt, into the journal; configurations tried before end there."""
        while (due := self._agenda.next(state)) is not None:
            number = state.next_trial
            params = due.params if due.params is not None else self._studies[due.arm].propose(number, due.index)
            if params is None:
                return None
            config = self._configure(number, due, params).to_dict()
            proposed = {"event": "trial_proposed", "trial": number, "params": params, "config": config, **due.fields()}
            settings = _tried(due.arm, config)
            if due.final or settings not in self._tried:
                self._tried.add(settings)
                self._journal.append(proposed, attempt_of(number, 0))
                return number
            self._journal.append(proposed, trial_ended(number, None, "stopped", "duplicate"))
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The journal has it already."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is all there is to save."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its journal")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles what it is given, and never unpickles it here


def attempt_of(trial: int, attempt: int) -> Event:
    """The event of a trial being handed to Ray."""
    return {"event": "trial_attempt", "trial": trial, "attempt": attempt}


def trial_ended(
    trial: int,
    attempt: int | None,
    status: str,
    reason: str,
    error: str | None = None,
    figures: dict[str, Any] | None = None,
) -> Event:
    """The event of a trial's end."""
    event = {"event": "trial_ended", "trial": trial, "attempt": attempt, "status": status, "stop_reason": reason}
    return event | {"error": error} | ({"figures": figures} if figures else {})


def _tried(arm: str, config: dict[str, Any]) -> tuple[str, str]:
    return arm, json.dumps({**config, "seed": None}, sort_keys=True)
