"""MLflow: an experiment for each sweep, on the server of MLFLOW_TRACKING_URI or in a database in the sweep's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from orchestrator.loggers import run
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, TrialRecord

STATUSES = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "running": "RUNNING",
    "paused": "RUNNING",  # MLflow has no better word: it may go on
    "interrupted": "KILLED",
}
"""MLflow's statuses; trials of all other statuses are FAILED."""
PAGE = 1000  # runs that the server lists at a time


@dataclass
class _LoggedRun:
    """The part of a run that the server has."""

    id: str
    epoch: int = 0
    final_metrics: frozenset[str] = frozenset()
    status: str = "running"
    has_settings: bool = False


class MLflow:
    """Asks the server what it has, so that nothing is logged twice."""

    def __init__(self, folder: Path, state: SweepState, url: str = "") -> None:
        self._folder = SweepFolder(folder)
        self._state = state
        self._local = "MLFLOW_TRACKING_URI" not in os.environ
        self._client = MlflowClient(f"sqlite:///{self._folder.mlflow}" if self._local else None)
        experiment = self._client.get_experiment_by_name(folder.name)
        self._experiment = experiment.experiment_id if experiment else self._create()
        self._runs = {entry.data.tags["identity"]: _logged(entry) for entry in self._search()}

    def update(self, trial: TrialRecord) -> None:
        """Log what the server does not have of the trial."""
        logged = self._runs.get(run.identity(self._folder.path, trial)) or self._begin(trial)
        if not logged.has_settings:
            settings = [Param(name, str(value)) for name, value in trial.config.items()]
            self._client.log_batch(logged.id, params=settings)
            logged.has_settings = True
        for epoch in trial.epochs:
            if epoch["epoch"] > logged.epoch:
                measured = {"epoch": epoch["epoch"], **run.metrics(epoch)}
                self._log(logged, measured, epoch["epoch"], epoch["ended_at"])
                logged.epoch = epoch["epoch"]
        metrics = run.final_metrics(trial) if trial.end is not None else {}
        new = {name: value for name, value in metrics.items() if name not in logged.final_metrics}
        if new:
            self._log(logged, new, trial.last_epoch, trial.ended_at or 0.0)
            logged.final_metrics |= set(new)
        if trial.status != logged.status:
            self._log_status(logged, trial)

    def close(self) -> None:
        """Do nothing: the client keeps nothing open."""

    def _create(self) -> str:
        artifacts = str(self._folder.mlflow_artifacts) if self._local else None
        return str(self._client.create_experiment(self._folder.name, artifact_location=artifacts))

    def _search(self) -> list[Run]:
        """Return the runs of the experiment that are trials of a sweep."""
        entries, token = [], None
        while token != "":
            page = self._client.search_runs([self._experiment], max_results=PAGE, page_token=token)
            entries += [entry for entry in page if "identity" in entry.data.tags]
            token = page.token or ""
        return entries

    def _begin(self, trial: TrialRecord) -> _LoggedRun:
        """Create a run with its tags."""
        identity = run.identity(self._folder.path, trial)
        tags = {**run.tags(self._state, trial), "identity": identity}
        if "git_revision" in tags:
            tags["mlflow.source.git.commit"] = tags["git_revision"]
        started = round(1000 * (trial.started_at or trial.proposed_at))
        created = self._client.create_run(self._experiment, started, tags, run.name(self._folder.path, trial))
        self._runs[identity] = logged = _LoggedRun(created.info.run_id)
        return logged

    def _log(self, logged: _LoggedRun, values: dict[str, float], step: int, at: float) -> None:
        milliseconds = round(1000 * at)
        self._client.log_batch(logged.id, [Metric(name, value, milliseconds, step) for name, value in values.items()])

    def _log_status(self, logged: _LoggedRun, trial: TrialRecord) -> None:
        tags = [RunTag(*tag) for tag in run.tags(self._state, trial).items()]
        self._client.log_batch(logged.id, tags=tags)
        status = STATUSES.get(trial.status, "FAILED")
        if status == "RUNNING":
            self._client.update_run(logged.id, status)
        else:
            self._client.set_terminated(logged.id, status, round(1000 * (trial.ended_at or self._state.last_t or 0)))
        logged.status = trial.status


def _logged(entry: Run) -> _LoggedRun:
    """Describe a run of an earlier command."""
    names = entry.data.metrics
    status = entry.data.tags.get("status", "running")
    return _LoggedRun(entry.info.run_id, int(names.get("epoch", 0)), frozenset(names), status, bool(entry.data.params))
