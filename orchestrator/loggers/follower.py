"""From a journal to a tracker: trials that changed are brought up to date there."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from orchestrator.record.journal import Tail
from orchestrator.record.state import Event, SweepState, TrialRecord, fold


class Tracker(Protocol):
    """Has one run for each trial, whatever number of attempts and commands the trial takes."""

    def update(self, trial: TrialRecord) -> None:
        """Bring the trial's run to where the journal is. What is there already is not logged again.

        May raise anything: it is called again for the same trial, later.
        """

    def close(self) -> None:
        """Let go of runs that are still open; nothing more comes."""


def make(text: str, folder: Path, state: SweepState) -> Tracker:
    """The tracker that `text` (`NAME` or `NAME=URL`) names, for the sweep in `folder`."""
    name, _, url = text.partition("=")
    if name == "tensorboard":
        from orchestrator.loggers.tensorboard import TensorBoard

        return TensorBoard(folder, state)
    if name == "mlflow":
        from orchestrator.loggers.mlflow import MLflow

        return MLflow(folder, state)
    if name == "wandb":
        from orchestrator.loggers.wandb import Wandb

        return Wandb(folder, state)
    from orchestrator.loggers.optuna import OptunaStorage

    return OptunaStorage(folder, state, url)


class Follower:
    """Folds the journal of the sweep in `folder` as it grows, and updates the tracker's run of each trial it concerns.

    A tracker sees trials, not events: after a failure, or a resume, it is brought up to date by the same call.
    """

    def __init__(self, folder: Path, start: Callable[[SweepState], Tracker]) -> None:
        """`start` makes the tracker, once there is something to tell; if it raises, it is called again later."""
        self._tail = Tail(folder / "journal.jsonl")
        self._start = start
        self._state = SweepState()
        self._tracker: Tracker | None = None
        self._changed: dict[int, None] = {}  # numbers of trials, in order

    @property
    def behind(self) -> bool:
        """Whether something is left that the tracker was not told."""
        return bool(self._changed)

    def follow(self) -> Exception | None:
        """Tell what is new, and what could not be told before; what went wrong first, if anything did."""
        for event in self._tail.read():
            fold(self._state, event)
            self._changed |= dict.fromkeys(self._concerned(event))
        for number in list(self._changed):
            try:
                if self._tracker is None:
                    self._tracker = self._start(self._state)
                self._tracker.update(self._state.trials[number])
            except Exception as error:
                traceback.print_exc()
                self._changed[number] = self._changed.pop(number)  # others first: it may be this trial's own trouble
                return error
            del self._changed[number]
        return None

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.close()

    def _concerned(self, event: Event) -> list[int]:
        """The trials that are other after `event`."""
        if event["event"] in ("sweep_ended", "sweep_resumed"):  # what was running is interrupted
            return [trial.number for trial in self._state.trials.values() if trial.attempt >= 0 and trial.end is None]
        trial = self._state.trials.get(event.get("trial", -1))
        return [trial.number] if trial is not None and event["event"] != "trial_proposed" else []
