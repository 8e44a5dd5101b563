"""Who proposes: the Ray `Searcher` around the studies that follow the journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from orchestrator.record.journal import Journal
from orchestrator.record.state import Event, SweepState
from orchestrator.search.study import JournalStudy
from orchestrator.search.trial_queue import NextTrial, TrialQueue
from trainables.config import TrialConfig, format_key


class JournalSearcher(Searcher):
    """Gives Ray Tune the trials that the folded journal says are due, and new ones while there is room.

    A trial whose worker died waits in the journal's state; it is suggested again as its next attempt, under whatever
    new id Ray gives it.
    """

    def __init__(
        self,
        journal: Journal,
        queue: TrialQueue,
        studies: Mapping[str, JournalStudy],
        configure: Callable[[int, NextTrial, dict[str, Any]], TrialConfig],
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
        self._agenda = queue
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
            "format": state.formats.get(format_key(trial.config)),
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
    final_metrics: dict[str, Any] | None = None,
) -> Event:
    """The event of a trial's end."""
    event = {"event": "trial_ended", "trial": trial, "attempt": attempt, "status": status, "stop_reason": reason}
    return event | {"error": error} | ({"final_metrics": final_metrics} if final_metrics else {})


def _tried(arm: str, config: dict[str, Any]) -> tuple[str, str]:
    return arm, json.dumps({**config, "seed": None}, sort_keys=True)
