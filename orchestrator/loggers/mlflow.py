"""MLflow: an experiment a sweep, on the server of MLFLOW_TRACKING_URI, or in a database in the sweep's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from orchestrator.loggers import run
from orchestrator.record.state import SweepState, TrialRecord

STATUSES = {"completed": "FINISHED", "stopped": "FINISHED", "running": "RUNNING", "interrupted": "KILLED"}
"""All others: FAILED."""
PAGE = 1000  # runs that the server tells of at a time


@dataclass
class _There:
    """What a run has."""

    id: str
    epoch: int = 0
    final_metrics: frozenset[str] = frozenset()
    status: str = "running"
    described: bool = False


class MLflow:
    """Asks the server what it has, so that nothing is logged twice."""

    def __init__(self, folder: Path, state: SweepState, url: str = "") -> None:
        self._folder = folder
        self._state = state
        own = "MLFLOW_TRACKING_URI" not in os.environ
        self._client = MlflowClient(f"sqlite:///{folder}/mlflow.db" if own else None)
        there = self._client.get_experiment_by_name(folder.name)
        self._experiment = there.experiment_id if there else self._create(own)
        self._runs = {found.data.tags["identity"]: _known(found) for found in self._search()}

    def update(self, trial: TrialRecord) -> None:
        there = self._runs.get(run.identity(self._folder, trial)) or self._begin(trial)
        if not there.described:
            settings = [Param(name, str(value)) for name, value in trial.config.items()]
            self._client.log_batch(there.id, params=settings)
            there.described = True
        for epoch in trial.epochs:
            if epoch["epoch"] > there.epoch:
                measured = {"epoch": epoch["epoch"], **run.metrics(epoch)}
                self._log(there, measured, epoch["epoch"], epoch["ended_at"])
                there.epoch = epoch["epoch"]
        found = run.final_metrics(trial) if trial.end is not None else {}
        new = {name: value for name, value in found.items() if name not in there.final_metrics}
        if new:
            self._log(there, new, trial.last_epoch, trial.ended_at or 0.0)
            there.final_metrics |= set(new)
        if trial.status != there.status:
            self._client.log_batch(there.id, tags=[RunTag(*tag) for tag in run.tags(self._state, trial).items()])
            status = STATUSES.get(trial.status, "FAILED")
            if status == "RUNNING":
                self._client.update_run(there.id, status)
            else:
                self._client.set_terminated(there.id, status, round(1000 * (trial.ended_at or self._state.last_t or 0)))
            there.status = trial.status

    def close(self) -> None:
        pass

    def _create(self, own: bool) -> str:
        artifacts = str(self._folder / "mlflow-artifacts") if own else None
        return str(self._client.create_experiment(self._folder.name, artifact_location=artifacts))

    def _search(self) -> list[Run]:
        found, token = [], None
        while token != "":
            page = self._client.search_runs([self._experiment], max_results=PAGE, page_token=token)
            found += [one for one in page if "identity" in one.data.tags]
            token = page.token or ""
        return found

    def _begin(self, trial: TrialRecord) -> _There:
        """A new run, with its tags."""
        identity = run.identity(self._folder, trial)
        tags = {**run.tags(self._state, trial), "identity": identity}
        if "git_revision" in tags:
            tags["mlflow.source.git.commit"] = tags["git_revision"]
        started = round(1000 * (trial.started_at or trial.proposed_at))
        made = self._client.create_run(self._experiment, started, tags, run.name(self._folder, trial))
        self._runs[identity] = there = _There(made.info.run_id)
        return there

    def _log(self, there: _There, values: dict[str, float], step: int, at: float) -> None:
        milliseconds = round(1000 * at)
        self._client.log_batch(there.id, [Metric(name, value, milliseconds, step) for name, value in values.items()])


def _known(found: Run) -> _There:
    """What a run of an earlier command has."""
    names = found.data.metrics
    status = found.data.tags.get("status", "running")
    return _There(found.info.run_id, int(names.get("epoch", 0)), frozenset(names), status, bool(found.data.params))
