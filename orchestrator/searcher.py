"""Who proposes: an Optuna study that follows the journal, and the Ray `Searcher` around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from orchestrator.journal import Event, Journal, SweepState
from orchestrator.scheduler import direction, gain
from search_spaces.grid import Grid
from search_spaces.space import SearchSpace
from trainables.config import TrialConfig
from trainables.seeds import seed_for

STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # all others: FAIL


class JournalStudy:
    """An Optuna study that is told what the journal says, event by event, live and on replay alike.

    Proposal n comes from a sampler seeded by (seed, n), so a study that has seen the same events proposes the same.
    """

    def __init__(self, space: SearchSpace, sampler: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._grid = Grid(space, seed) if sampler == "grid" else None
        self._sign = direction(space.base.metric)
        self.study = optuna.create_study(direction="maximize" if self._sign > 0 else "minimize")
        self._trials: dict[int, Trial] = {}
        self._gains: dict[int, float] = {}  # best so far, more is better

    def propose(self, number: int) -> dict[str, Any]:
        """The searched values of trial `number`, the next one."""
        if self._grid is not None:
            self.study.enqueue_trial(self._grid[number])
        return self._ask(number, self._make_sampler(number)).params

    def observe(self, event: Event) -> None:
        """Tell the study what a journal event means to it."""
        number, kind = event["trial"], event["event"]
        if kind == "trial_proposed":
            if number not in self._trials:  # replayed: it was not asked here
                self.study.enqueue_trial(event["params"])
                self._ask(number, RandomSampler(seed=0))
        elif number not in self._trials:
            return
        elif kind == "trial_epoch":
            self._report(number, event["metrics"]["epoch"], event["metrics"][self._space.base.metric])
        elif kind == "trial_ended":
            self._tell(number, event["status"])

    def _make_sampler(self, number: int) -> BaseSampler:
        seed = seed_for(self._seed, "proposal", number) % 2**32
        return TPESampler(seed=seed) if self._sampler == "tpe" else RandomSampler(seed=seed)

    def _ask(self, number: int, sampler: BaseSampler) -> Trial:
        self.study.sampler = sampler
        self._trials[number] = self.study.ask(fixed_distributions=dict(self._space.distributions))
        return self._trials[number]

    def _report(self, number: int, epoch: int, value: float | None) -> None:
        """Report the score at `epoch`: the running best, as ASHA and the ranking have it."""
        self._gains[number] = max(gain(value, self._sign), self._gains.get(number, gain(None, self._sign)))
        self._trials[number].report(self._sign * self._gains[number], epoch)

    def _tell(self, number: int, status: str) -> None:
        state = STATES.get(status, TrialState.FAIL)
        value = self._sign * self._gains[number] if state == TrialState.COMPLETE else None
        self.study.tell(self._trials[number], value, state=state)


class JournalSearcher(Searcher):
    """Gives Ray Tune the trials that the folded journal says are due, and new ones while there is room.

    A trial whose worker died waits in the journal's state; it is suggested again as its next attempt, under whatever
    new id Ray gives it.
    """

    def __init__(
        self,
        journal: Journal,
        study: JournalStudy,
        trials: int,
        configure: Callable[[int, dict[str, Any]], TrialConfig],
        slots: Callable[[], int],
    ) -> None:
        """`configure` makes the whole configuration of a trial from its number and its searched values."""
        super().__init__(metric=None, mode=None)
        self._journal = journal
        self._study = study
        self._trials = trials
        self._configure = configure
        self._slots = slots
        self._tried: dict[int, str] = {}  # trial → digest of its configuration but for the seed

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        state = self._journal.state
        if len(state.running) >= self._slots():
            return None
        if not state.waiting:
            self._propose(state)
        if not state.waiting:
            return None if state.running else str(Searcher.FINISHED)
        trial = state.trials[state.waiting[0]]
        self._journal.append({"event": "trial_attempt", "trial": trial.number, "attempt": trial.attempt + 1})
        return {"trial": trial.number, "attempt": trial.attempt, "config": trial.config}

    def _propose(self, state: SweepState) -> None:
        """Put the next trial into the journal, passing over configurations that were tried before."""
        while not state.waiting and len(state.trials) < self._trials:
            number = max(state.trials, default=-1) + 1
            params = self._study.propose(number)
            config = self._configure(number, params)
            proposed = {
                "event": "trial_proposed",
                "trial": number,
                "params": params,
                "config": config.to_dict(),
            }
            repeated = _but_for_seed(config) in self._digests(state)
            end = [trial_ended(number, None, "stopped", "duplicate")] if repeated else []
            self._journal.append(proposed, *end)

    def _digests(self, state: SweepState) -> set[str]:
        for number in state.trials.keys() - self._tried.keys():
            self._tried[number] = _but_for_seed(TrialConfig.from_dict(state.trials[number].config))
        return set(self._tried.values())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The journal has it already."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is all there is to save."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its journal")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles what it is given, and never unpickles it here


def trial_ended(trial: int, attempt: int | None, status: str, reason: str, error: str | None = None) -> Event:
    """The event of a trial's end."""
    return {
        "event": "trial_ended",
        "trial": trial,
        "attempt": attempt,
        "status": status,
        "stop_reason": reason,
        "error": error,
    }


def _but_for_seed(config: TrialConfig) -> str:
    return config.replace(seed=0).digest()
