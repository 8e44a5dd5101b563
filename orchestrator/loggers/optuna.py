"""An Optuna storage, for its dashboard: a study a sweep, of a recipe one an arm, with the trials that have ended."""

from __future__ import annotations

from pathlib import Path

import optuna

from orchestrator.cluster.process_state import optuna_quiet
from orchestrator.loggers import run
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search.study import direction_of, frozen
from search_spaces.space import SearchSpace


def study_name(sweep: str, arm: str) -> str:
    """Of an ordinary sweep the sweep's."""
    return f"{sweep}/{arm}" if arm else sweep


class OptunaStorage:
    """Trials are as the search saw them; runs that confirm a trial it did not see, so they are in no study."""

    @optuna_quiet()
    def __init__(self, folder: Path, state: SweepState, url: str) -> None:
        self._folder = folder
        self._state = state
        self._arms = {name: SearchSpace.from_dict(space) for name, space in state.spec["plan"]["arms"].items()}
        self._storage = optuna.storages.get_storage(url)
        self._studies: dict[str, tuple[optuna.Study, set[int]]] = {}  # with the trials in it, by our numbers

    @optuna_quiet()
    def update(self, trial: TrialRecord) -> None:
        if trial.end is None or trial.final:
            return
        study, there = self._studies.get(trial.arm) or self._open(trial.arm)
        if trial.number not in there:
            facts = {**run.tags(self._state, trial), **run.final_metrics(trial), "trial": trial.number}
            study.add_trial(frozen(trial, self._arms[trial.arm], facts))
            there.add(trial.number)

    def close(self) -> None:
        pass

    def _open(self, arm: str) -> tuple[optuna.Study, set[int]]:
        name = study_name(self._folder.name, arm)
        study = optuna.create_study(
            storage=self._storage, study_name=name, direction=direction_of(self._arms[arm]), load_if_exists=True
        )
        there = {trial.user_attrs["trial"] for trial in study.get_trials(deepcopy=False)}
        self._studies[arm] = study, there
        return study, there
