"""The weights that checkpoints keep: found when the best model is written, removed when nothing needs them any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors.numpy import load as unpack

from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.events import Event, TrialEnded
from orchestrator.record.facts import Worker
from orchestrator.record.ranking import rank_key
from orchestrator.record.state import SweepState, TrialRecord
from trainables import checkpoint
from trainables.storage import Storage, patiently

KEPT = 5  # trials whose weights are kept while the sweep runs


@dataclass(frozen=True)
class Calibration:
    """The same as `trainables.calibration.Calibration`, which needs torch."""

    calibration_error: float | None
    temperature: float | None
    tempered_error: float | None


class Weights(NamedTuple):
    """The weights that a trial leaves, and how its probabilities are calibrated."""

    tensors: dict[str, NDArray[Any]]  # by parameter name
    calibration: Calibration | None = None  # on the trial's scored rows
    logits: NDArray[Any] | None = None  # float32 [N, C], of a final run for the rows that it is scored on

    @property
    def temperature(self) -> float | None:
        """The temperature that was fitted to the model, if one was."""
        return None if self.calibration is None else self.calibration.temperature


def find(storage: Storage, trial: int, epoch: int | None) -> Weights | None:
    """Return the trial's weights at `epoch`, its best one; None if no checkpoint on this machine's `storage` has them.

    Raises:
        StorageError: storage failed, and may have them.
    """
    return patiently(lambda: _find(storage, trial, epoch))


def _find(storage: Storage, trial: int, epoch: int | None) -> Weights | None:
    for name in checkpoint.newest_first(storage, trial):
        with contextlib.suppress(*checkpoint.DAMAGED, RecordError):
            values = checkpoint.read_values(storage, trial, name)
            if values["best_epoch"] != epoch:
                continue  # made before the epoch that turned out to be the best
            tensors = unpack(checkpoint.read(storage, trial, name))
            parts = ("model.", "average.", "best.")  # the last two have only what training changes
            own = {n.removeprefix(part): t for part in parts for n, t in tensors.items() if n.startswith(part)}
            calibration = values.get("calibration")
            fitted = None if calibration is None else from_json(Calibration, calibration)
            return Weights(own, fitted, tensors.get(checkpoint.SCORED))
    return None


def worker(storage: Storage, trial: int) -> Worker | None:
    """Return the worker that ran a trial, if a checkpoint on this machine's `storage` names it."""
    with contextlib.suppress(OSError):
        for name in checkpoint.newest_first(storage, trial):
            with contextlib.suppress(OSError, *checkpoint.DAMAGED, RecordError):
                return from_json(Worker, checkpoint.read_values(storage, trial, name)["worker"])
    return None


class Pruner:
    """Follows the journal and removes the checkpoints that nothing can need any more.

    Kept are those of unfinished trials, and the best weights of runs that confirm a trial, and of the
    best few others that ran to their end.
    """

    def __init__(self, state: SweepState, storage: Storage) -> None:
        self._state = state
        self._first = state.next_n
        self._storage = storage
        self._kept: list[TrialRecord] = []
        self._confirming: list[TrialRecord] = []  # any of them may turn out to be the winner

    def observe(self, event: Event) -> None:
        """Follow one journal event; `tidy` removes what earlier commands left."""
        if not isinstance(event, TrialEnded) or event.trial not in self._state.trials:  # its proposal was damaged
            return
        trial = self._state.trials[event.trial]
        if trial.confirms is not None and trial.status == "completed":
            self._confirming.append(trial)
            return
        if trial.status == "completed":
            self._kept = sorted([*self._kept, trial], key=rank_key(self._state))
            dropped = self._kept[KEPT:]
            self._kept = self._kept[:KEPT]
        else:
            dropped = [trial]
        if event.n >= self._first:
            self._remove(str(old.number) for old in dropped)

    def tidy(self) -> None:
        """Remove all checkpoints that nothing needs: those that an earlier command, or a worker that was too late,
        left.
        """
        unfinished = [trial for trial in self._state.trials.values() if trial.end is None]
        names = {str(trial.number) for trial in (*self._kept, *self._confirming, *unfinished)}
        with contextlib.suppress(OSError):
            self._remove(name for name in self._storage.names() if name.isdigit() and name not in names)

    def _remove(self, folders: Iterable[str]) -> None:
        for folder in folders:
            with contextlib.suppress(OSError):
                self._storage.remove_folder(folder)
