"""An Optuna storage, for its dashboard: a study for each sweep, or for each arm of a recipe, with its ended trials."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.cluster.process_state import optuna_quiet
from orchestrator.loggers import run
from orchestrator.record.decoding import RecordError
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search import outcomes
from orchestrator.search.study import STATES, TRAINS, direction_of, has_shared_slots
from search_spaces.space import SearchSpace


def study_name(sweep: str, arm: str) -> str:
    """Return `<sweep>`, or `<sweep>/<arm>` for an arm of a recipe."""
    return f"{sweep}/{arm}" if arm else sweep


class OptunaStorage:
    """Trials are as the search saw them; it did not see the runs that confirm a trial, so they are in no study."""

    @optuna_quiet()
    def __init__(self, folder: Path, state: SweepState, url: str) -> None:
        self._folder = folder
        self._state = state
        self._arms = {name: SearchSpace.from_dict(space) for name, space in state.spec.plan["arms"].items()}
        self._storage = optuna.storages.get_storage(url)
        self._studies: dict[str, tuple[optuna.Study, set[int]]] = {}  # with our numbers of the trials in it

    @optuna_quiet()
    def update(self, trial: TrialRecord) -> None:
        """Add a searched trial that has ended, unless the study has it."""
        if trial.end is None or trial.final:
            return
        study, stored = self._studies.get(trial.arm) or self._open(trial.arm)
        if trial.number not in stored:
            facts = {**run.tags(self._state, trial), **run.final_metrics(trial), "trial": trial.number}
            study.add_trial(frozen(trial, self._arms[trial.arm], self._state.spec.plan, facts))
            stored.add(trial.number)

    def close(self) -> None:
        """Do nothing: the storage keeps nothing open."""

    def _open(self, arm: str) -> tuple[optuna.Study, set[int]]:
        """Return the study of an arm, and the numbers of the trials in it."""
        name = study_name(self._folder.name, arm)
        study = optuna.create_study(
            storage=self._storage, study_name=name, direction=direction_of(self._arms[arm]), load_if_exists=True
        )
        stored = {trial.user_attrs["trial"] for trial in study.get_trials(deepcopy=False)}
        self._studies[arm] = study, stored
        return study, stored


def frozen(trial: TrialRecord, space: SearchSpace, plan: Mapping[str, Any], facts: Mapping[str, Any]) -> FrozenTrial:
    """Return a searched trial that has ended as a study of it has it, for a storage.

    Args:
        plan: the sweep's, as JSON.
        facts: become user attributes.

    Raises:
        RecordError: the trial's searched values are not such as the space has.
    """
    assert trial.end is not None  # noqa: S101 - the caller has checked it
    learned = outcomes.learned(trial.end, scored=trial.score is not None, shared_slot=has_shared_slots(plan))
    state = STATES[learned]
    try:
        frozen_trial = optuna.trial.create_trial(
            state=state,
            value=trial.score if state == TrialState.COMPLETE else None,
            params=trial.params,
            distributions={name: space.hull(name) for name in trial.params},
            user_attrs=dict(facts),
            intermediate_values={epoch: score for epoch, score in trial.scores.items() if score is not None},
            constraints={TRAINS: 1.0} if learned == "infeasible" else None,
        )
    except (KeyError, ValueError) as error:  # an unknown setting, a value that its distribution does not have
        raise RecordError(f"trial {trial.number} has values that its sweep does not search: {error}") from error
    started, ended = trial.started_at or trial.proposed_at, trial.ended_at or trial.proposed_at
    frozen_trial.datetime_start, frozen_trial.datetime_complete = _local(started), _local(ended)
    return frozen_trial


def _local(seconds: float) -> datetime:
    """Return seconds since 1970 as Optuna has times: local, without a zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().replace(tzinfo=None)
