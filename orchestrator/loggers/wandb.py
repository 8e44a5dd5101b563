"""Weights & Biases: a group of runs for each sweep, in the project WANDB_PROJECT or one named after the data set.

WANDB_MODE is honoured.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import wandb

from orchestrator.loggers import run
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, TrialRecord

FINISHED = "told.json"  # in the folder of a run: the summary that it was finished with


class Wandb:
    """Goes on in the run that the server has. Offline there is none: files of an unfinished run are written again."""

    def __init__(self, folder: Path, state: SweepState, url: str = "") -> None:
        self._folder = folder
        self._runs_folder = SweepFolder(folder).wandb
        self._state = state
        self._project = os.environ.get("WANDB_PROJECT") or Path(state.spec.plan["dataset"]).stem
        self._open: dict[int, Any] = {}  # runs, by the trial's number

    def update(self, trial: TrialRecord) -> None:
        """Log what the trial's run does not have."""
        if trial.number not in self._open and self._is_finished(trial):
            return
        wandb_run = self._open.get(trial.number) or self._begin(trial)
        for epoch in trial.epochs:
            if epoch["epoch"] >= wandb_run.step:
                wandb_run.log({"epoch": epoch["epoch"], **run.metrics(epoch)}, step=epoch["epoch"], commit=True)
        if trial.end is not None:
            wandb_run.summary.update(self._summary(trial))
            if not trial.final:  # final runs may yet be measured on the test set
                self._finish(trial)

    def close(self) -> None:
        """Finish the runs that are open."""
        for number in list(self._open):
            self._finish(self._state.trials[number])

    def _summary(self, trial: TrialRecord) -> dict[str, Any]:
        return {**run.tags(self._state, trial), **run.final_metrics(trial)}

    def _begin(self, trial: TrialRecord) -> Any:
        """Return the trial's run, opened."""
        identity = run.identity(self._folder, trial)
        for path in self._runs_folder.glob(f"offline-run-*-{identity}"):
            shutil.rmtree(path)
        facts = run.tags(self._state, trial)
        self._open[trial.number] = opened = wandb.init(
            id=identity,
            name=run.name(self._folder, trial),
            project=self._project,
            group=self._folder.name,
            tags=[f"confirms trial {trial.confirms}"] if trial.confirms is not None else None,
            config=trial.config | {key: facts[key] for key in facts if key not in ("status", "stop_reason", "error")},
            dir=str(self._folder),
            resume="allow",
            reinit="create_new",
        )
        return opened

    def _finish(self, trial: TrialRecord) -> None:
        opened = self._open[trial.number]
        opened.finish(exit_code=0 if trial.status in ("completed", "stopped", "paused") else 1)
        del self._open[trial.number]
        if trial.end is not None:
            (Path(opened.dir).parent / FINISHED).write_text(json.dumps(self._summary(trial)))

    def _is_finished(self, trial: TrialRecord) -> bool:
        """Return whether an earlier command finished the trial's run with the summary that it has now."""
        identity = run.identity(self._folder, trial)
        paths = self._runs_folder.glob(f"*run-*-{identity}/{FINISHED}")
        return any(json.loads(path.read_text()) == self._summary(trial) for path in paths)
