"""The trials of an Optuna study that a sampler looks at: of many the best and the newest ones.

A proposal would else take longer with every trial. TPE models the best 25 trials and all others, and gives the older
ones of these a weight that falls with their age; so what is left out is what would hardly count.
"""

from __future__ import annotations

import bisect
from collections.abc import Container
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

BEST, NEWEST = 25, 275  # trials


class Window:
    """A study as samplers see it. Trials are added to the study itself."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._best: list[tuple[float, int, FrozenTrial]] = []  # (loss, number, trial), ascending, of complete trials
        self._sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def note(self, trial: FrozenTrial) -> None:
        """Note a trial of the study that has its result; one that breaks a constraint is none of the best."""
        feasible = all(excess <= 0 for excess in trial.constraints.values())
        if trial.state == TrialState.COMPLETE and trial.value is not None and feasible:
            bisect.insort(self._best, (self._sign * trial.value, trial.number, trial))
            del self._best[BEST:]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return the trials in sight, in their order, as Optuna's samplers ask for them."""
        every = self._study._storage.get_all_trials(self._study._study_id, deepcopy=False)
        newest = every[-NEWEST:]
        first = newest[0].number if newest else 0
        best = sorted((trial for _, number, trial in self._best if number < first), key=lambda trial: trial.number)
        return [trial for trial in (*best, *newest) if states is None or trial.state in states]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the same."""
        return self._get_trials(deepcopy, states)
