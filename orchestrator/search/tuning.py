"""Trials run by Ray Tune, which gets them from the journal and whose results go there.

Results enter through a `Stopper`, the only hook of Tune that sees every result, and sees it first. It appends them,
with the decision of the stop rule, before the scheduler acts on that decision.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from orchestrator.cluster import process_state
from orchestrator.record.decoding import from_json
from orchestrator.record.events import AttemptLost, Event, TrialEnded, TrialEpoch
from orchestrator.record.facts import Worker
from orchestrator.record.journal import Journal
from orchestrator.search.schedulers import StopRule
from orchestrator.search.searcher import JournalSearcher
from trainables.storage import Storage
from trainables.trainable import ImageTrial

MOST_LOSSES = 5  # attempts that a trial may lose to dying workers before it fails


@dataclass
class Ending:
    """The reasons to end a sweep before its trials do: a signal, no time left, or workers that cannot start."""

    deadline: float = float("inf")  # time.monotonic() seconds
    interruption: process_state.Interruption = field(default_factory=process_state.Interruption)
    failure: str | None = None  # the error of workers that cannot start

    @property
    def reason(self) -> str | None:
        """The reason to end now; None to go on."""
        if self.failure is not None:
            return "failed"
        if self.interruption.received:
            return "signal"
        return "sweep_budget" if time.monotonic() >= self.deadline else None


class Ended(BaseException):
    """Leaves Tune at once: it would wait for its actors, up to 15 s, and write down every trial once more."""


class Recorder(Stopper):
    """Appends every result to the journal. It never stops a single trial, but all of them when the sweep should end."""

    def __init__(self, journal: Journal, rule: StopRule, ending: Ending, searcher: JournalSearcher) -> None:
        self._journal = journal
        self._rule = rule
        self._ending = ending
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Append the result's epochs, and the trial's end if it ended or is stopped; return False."""
        number, attempt = result["trial"], result["attempt"]
        if self._journal.state.running.get(number) != attempt:
            return False  # from a worker that was taken for lost
        trial, end = self._journal.state.trials[number], result.get("end")
        news: dict[str, Any] = {"worker": _worker(result), "unsaved": result.get("unsaved")}
        ended = None if end is None else TrialEnded(number, attempt, **end)
        # there are several epochs where a checkpoint had some that no result reported; all may be rungs
        for metrics in result["epochs"]:
            if metrics["epoch"] <= trial.last_epoch:
                continue
            events: list[Event] = [TrialEpoch(number, attempt, metrics, **news)]
            news = {}
            if ended is not None and metrics["stop_reason"] is not None:
                events.append(ended)
            elif self._weak(number, metrics):
                events.append(TrialEnded(number, attempt, "stopped", self._rule.reason))
            self._journal.append(*events)
            if trial.end is not None:
                return False
        if ended is not None:
            self._journal.append(replace(ended, **news))
        return False

    def _weak(self, number: int, metrics: dict[str, Any]) -> bool:
        """Return whether the stop rule ends the trial at this epoch."""
        trial = self._journal.state.trials[number]
        return self._rule.stops(self._journal.state, trial, metrics["epoch"], trial.score_with(metrics))

    def stop_all(self) -> bool:
        """Raise `Ended` if the sweep should end, else return False."""
        if self._ending.reason is not None or self._searcher.exhausted:
            raise Ended
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}


class JournalScheduler(FIFOScheduler):
    """Stops trials that ended in the journal, and records attempts whose workers died, which are then repeated."""

    def __init__(self, journal: Journal, ending: Ending) -> None:
        super().__init__()
        self._journal = journal
        self._ending = ending
        self._any_result = False
        self._losses = 0  # attempts lost before any result: workers that cannot start at all

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether the trial's worker goes on: it does if the journal says that this attempt is running."""
        self._any_result = True
        current = self._journal.state.running.get(result["trial"]) == result["attempt"]
        return str(TrialScheduler.CONTINUE if current else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Record a lost attempt; fail the trial, or end the sweep, if too many were lost."""
        number, attempt = trial.config["trial"], trial.config["attempt"]
        if self._journal.state.running.get(number) != attempt:
            return
        if self._ending.interruption.received:  # the signal ended the worker, too
            return
        error = _error_of(trial)
        self._losses += 1
        if not self._any_result and self._losses > MOST_LOSSES:
            self._ending.failure = error
        events: list[Event] = [AttemptLost(number, attempt, error)]
        if self._ending.failure is None and self._journal.state.trials[number].losses >= MOST_LOSSES:
            events.append(TrialEnded(number, attempt, "failed", "lost", error))
        self._journal.append(*events)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _worker(result: dict[str, Any]) -> Worker | None:
    """Return the description of the worker that an attempt's first result brings."""
    return from_json(Worker, result["worker"]) if "worker" in result else None


def _error_of(trial: Trial) -> str:
    """Return what Tune wrote down of the trial's last error."""
    try:
        return Path(trial.error_file).read_text().strip()
    except OSError:
        return "the worker died"


def image_trials(data: ray.ObjectRef, storage: Storage, device: str) -> Any:
    """Return the trainable of a sweep over `data` (a `SearchData` in the object store), on `device` (cpu or cuda)."""
    return tune.with_parameters(ImageTrial, data=data, storage=storage, device=device, run=uuid.uuid4().hex)


def run(
    journal: Journal,
    searcher: JournalSearcher,
    rule: StopRule,
    trainable: Any,
    resources: dict[str, float],
    ending: Ending,
) -> str:
    """Run trials until the searcher has no more, or the sweep should end; return the reason of its end.

    Tune's folder is temporary: nothing in it is needed once this returns. Its workers, and the CPUs that they hold, are
    freed when Ray is shut down, or the driver leaves the cluster.
    """
    folder = tempfile.mkdtemp(prefix="sweep-")
    try:
        with process_state.tune_adapted():
            tuner = tune.Tuner(
                tune.with_resources(trainable, resources),
                tune_config=TuneConfig(
                    search_alg=searcher,
                    scheduler=JournalScheduler(journal, ending),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: trial.trial_id,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=RunConfig(
                    name="tune",
                    storage_path=folder,
                    stop=Recorder(journal, rule, ending, searcher),
                    failure_config=FailureConfig(max_failures=0),
                    checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    verbose=0,
                ),
            )
            with ending.interruption.raised(), suppress(Ended):
                tuner.fit()
    except KeyboardInterrupt:
        if not ending.interruption.received:
            raise
    except TuneError:  # Tune wraps whatever a hook raises
        if journal.failure is not None:
            raise journal.failure from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ending.reason or "finished"
