"""From a journal to a tracker: trials that changed are brought up to date there."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from orchestrator.loggers.trackers import Tracker
from orchestrator.record.events import Event, SweepEnded, SweepResumed, TrialEvent, TrialProposed
from orchestrator.record.journal import Tail
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, fold
from trainables.secrets import without_secrets


class Follower:
    """Folds the journal of the sweep in `folder` as it grows, and updates the tracker's run of each trial it concerns.

    A tracker sees trials, not events: after a failure, or a resume, it is brought up to date by the same call.
    """

    def __init__(self, folder: Path, start: Callable[[SweepState], Tracker]) -> None:
        """Take what makes the tracker; it is called once there is a trial, and again later if it raises."""
        self._tail = Tail(SweepFolder(folder).journal)
        self._start = start
        self._state = SweepState()
        self._tracker: Tracker | None = None
        self._changed: dict[int, None] = {}  # numbers of trials, in order

    @property
    def behind(self) -> bool:
        """True if a trial has changed since the tracker saw it."""
        return bool(self._changed)

    def follow(self) -> Exception | None:
        """Update all trials that changed, or could not be updated before; return the first error."""
        for event in self._tail.read():
            fold(self._state, event)
            self._changed |= dict.fromkeys(self._concerned(event))
        for number in list(self._changed):
            try:
                if self._tracker is None:
                    self._tracker = self._start(self._state)
                self._tracker.update(self._state.trials[number])
            except Exception as error:
                sys.stderr.write(without_secrets(traceback.format_exc()))
                self._changed[number] = self._changed.pop(number)  # others first: this trial alone may be the trouble
                return error
            del self._changed[number]
        return None

    def close(self) -> None:
        """Close the tracker."""
        if self._tracker is not None:
            self._tracker.close()

    def _concerned(self, event: Event) -> list[int]:
        """Return the numbers of the trials that `event` changed."""
        if isinstance(event, SweepEnded | SweepResumed):  # what was running is interrupted
            return [trial.number for trial in self._state.trials.values() if trial.attempt >= 0 and trial.end is None]
        if not isinstance(event, TrialEvent) or isinstance(event, TrialProposed):
            return []
        return [event.trial] if event.trial in self._state.trials else []
