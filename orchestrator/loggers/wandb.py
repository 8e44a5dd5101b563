"""Weights & Biases: a group a sweep, in the project WANDB_PROJECT or that of the data set; WANDB_MODE is honoured."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import wandb

from orchestrator.loggers import run
from orchestrator.record.state import SweepState, TrialRecord

TOLD = "told.json"  # in the folder of a run: what it was finished with


class Wandb:
    """Goes on in the run that the server has. Offline there is none: files of an unfinished run are made anew."""

    def __init__(self, folder: Path, state: SweepState, url: str = "") -> None:
        self._folder = folder
        self._state = state
        self._project = os.environ.get("WANDB_PROJECT") or Path(state.spec["plan"]["dataset"]).stem
        self._open: dict[int, Any] = {}

    def update(self, trial: TrialRecord) -> None:
        if trial.number not in self._open and self._is_told(trial):
            return
        there = self._open.get(trial.number) or self._begin(trial)
        for epoch in trial.epochs:
            if epoch["epoch"] >= there.step:
                there.log({"epoch": epoch["epoch"], **run.metrics(epoch)}, step=epoch["epoch"], commit=True)
        if trial.end is not None:
            there.summary.update(self._summary(trial))
            if not trial.final:  # those may yet be measured on the test set
                self._finish(trial)

    def close(self) -> None:
        for number in list(self._open):
            self._finish(self._state.trials[number])

    def _summary(self, trial: TrialRecord) -> dict[str, Any]:
        return {**run.tags(self._state, trial), **run.final_metrics(trial)}

    def _begin(self, trial: TrialRecord) -> Any:
        identity = run.identity(self._folder, trial)
        for path in self._folder.glob(f"wandb/offline-run-*-{identity}"):
            shutil.rmtree(path)
        facts = run.tags(self._state, trial)
        self._open[trial.number] = there = wandb.init(
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
        return there

    def _finish(self, trial: TrialRecord) -> None:
        there = self._open[trial.number]
        there.finish(exit_code=0 if trial.status in ("completed", "stopped") else 1)
        del self._open[trial.number]
        if trial.end is not None:
            (Path(there.dir).parent / TOLD).write_text(json.dumps(self._summary(trial)))

    def _is_told(self, trial: TrialRecord) -> bool:
        """Whether an earlier command has finished the trial's run with what there is to say now."""
        identity = run.identity(self._folder, trial)
        paths = self._folder.glob(f"wandb/*run-*-{identity}/{TOLD}")
        return any(json.loads(path.read_text()) == self._summary(trial) for path in paths)
